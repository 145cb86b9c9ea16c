"""The official library's client, in an interpreter of its own: plays what ``test_a2a.py`` asks for.

    PYTHON_WITH_A2A_SDK a2a_client.py URL TOKEN  <  {"recipient": ..., "topic": ...}

Prints one JSON object. Not imported by any test: our own environment has no ``a2a`` library.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any


async def play(url: str, token: str, wanted: dict[str, Any]) -> dict[str, Any]:
    import httpx
    from a2a.client import A2ACardResolver, ClientConfig, ClientFactory
    from a2a.types import a2a_pb2 as types
    from google.protobuf.json_format import MessageToDict

    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=60) as http:
        card = await A2ACardResolver(http, url.removesuffix("/a2a")).get_agent_card()
        client = ClientFactory(ClientConfig(httpx_client=http, streaming=True)).create(card)
        part = types.Part()
        part.data.struct_value.update(wanted)
        message = types.Message(message_id="m1", role="ROLE_USER", parts=[part])
        message.metadata.update({"skill": "opening_compose_email"})
        updates = [
            MessageToDict(update)
            async for update in client.send_message(types.SendMessageRequest(message=message))
        ]
        task = updates[0]["task"]["id"]
        found = await client.get_task(types.GetTaskRequest(id=task))
        listed = await client.list_tasks(types.ListTasksRequest(page_size=5))
        cancelled = await client.cancel_task(types.CancelTaskRequest(id=task))
        try:
            await client.get_task(types.GetTaskRequest(id="nobody"))
            error = ""
        except Exception as raised:
            error = type(raised).__name__
        return {
            "skills": [skill.id for skill in card.skills],
            "updates": updates,
            "found": MessageToDict(found),
            "listed": [one.id for one in listed.tasks],
            "cancelled": MessageToDict(cancelled),
            "error": error,
        }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(play(sys.argv[1], sys.argv[2], json.load(sys.stdin)))))
