"""Who is at the other end, and every frame between them: topics, queues, access, the socket."""
