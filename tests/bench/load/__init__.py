"""The load generator, the brokers it is pointed at, and the clients of other people's."""
