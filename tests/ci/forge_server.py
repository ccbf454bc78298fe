"""The parts of GitHub's and GitLab's REST APIs that comments need, on loopback, as strict as the services are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

GITHUB_TOKEN = "ghs_secret-of-the-run"
GITLAB_TOKEN = "glpat-secret-of-the-project"
BOT = "github-actions[bot]"


class ForgeServer:
    """comments: of the one pull request, 7 of acme/support (GitHub) and of project 42 (GitLab). answers: statuses, one
    a call, that are answered in place of doing it; "lost": done, and the connection closed without an answer."""

    def __init__(self) -> None:
        self.comments: list[dict[str, Any]] = []
        self.issues: list[dict[str, Any]] = []
        self.calls: list[str] = []
        self.answers: list[int | str] = []
        self.headers: dict[str, str] = {}
        self.pulls: list[dict[str, Any]] = []
        self._last = 0
        self.url = ""

    def write(self, body: str, author: str) -> int:
        self._last += 1
        self.comments.append({"id": self._last, "author": author, "body": body})
        return self._last

    def bodies(self, author: str = BOT) -> list[str]:
        return [c["body"] for c in self.comments if c["author"] == author]

    def handle(self, method: str, path: str, query: dict[str, str], token: str, body: Any) -> tuple[int, Any, str]:
        """Status, JSON, and the Link header."""
        if "/issues" in path and "/comments" not in path:
            return self._issue(method, path, query, token, body)
        if method == "POST" or method in ("PATCH", "PUT"):
            if not isinstance(body, dict) or not body.get("body"):
                return 422, {"message": "Validation Failed"}, ""
            if len(body["body"]) > 65_536:
                return 422, {"message": "Validation Failed", "errors": ["body is too long (maximum is 65536)"]}, ""
        if path.startswith("/gitlab/"):
            return self._gitlab(method, path.removeprefix("/gitlab"), query, token, body)
        return self._github(method, path, query, token, body)

    def _issue(self, method: str, path: str, query: dict[str, str], token: str, body: Any) -> tuple[int, Any, str]:
        """Issues of both services: kept as GitHub shows them."""
        gitlab = path.startswith("/gitlab/")
        if token != (GITLAB_TOKEN if gitlab else f"Bearer {GITHUB_TOKEN}"):
            return 401, {"message": "Bad credentials"}, ""
        top = "/gitlab/projects/42/issues" if gitlab else "/repos/acme/support/issues"
        text, me = ("description", "project_42_bot") if gitlab else ("body", BOT)
        if path == top and method == "GET":
            assert query["state"] == ("opened" if gitlab else "open")
            shown = [self._shown_issue(i, gitlab=gitlab) for i in self.issues if i["state"] == "open"]
            return self._page(query, f"{self.url}{path}", shown)
        if path == top:
            if set(body) != {"title", text} or not body["title"] or len(body["title"]) > 255:
                return 422, {"message": "Validation Failed"}, ""
            self._last += 1
            made = {"number": self._last, "author": me, "title": body["title"], "body": body[text], "state": "open"}
            self.issues.append(made)
            return 201, self._shown_issue(made, gitlab=gitlab), ""
        found = next((i for i in self.issues if path == f"{top}/{i['number']}"), None)
        if found is None:
            return 404, {"message": "Not Found"}, ""
        if method != ("PUT" if gitlab else "PATCH"):
            return 405, {"message": "Method Not Allowed"}, ""
        assert found["author"] == me, "somebody else's issue was touched"
        if body in ({"state_event": "close"}, {"state": "closed", "state_reason": "completed"}):
            found["state"] = "closed"
        else:
            found |= {"title": body["title"], "body": body[text]}
        return 200, self._shown_issue(found, gitlab=gitlab), ""

    @staticmethod
    def _shown_issue(issue: dict[str, Any], *, gitlab: bool) -> dict[str, Any]:
        number, title, text = issue["number"], issue["title"], issue["body"]
        if gitlab:
            return {"iid": number, "title": title, "description": text, "author": {"username": issue["author"]}}
        request = {"pull_request": {}} if issue.get("pull") else {}
        return {"number": number, "title": title, "body": text, "user": {"login": issue["author"]}, **request}

    def opened(self) -> list[dict[str, Any]]:
        return [i for i in self.issues if i["state"] == "open"]

    def _github(self, method: str, path: str, query: dict[str, str], token: str, body: Any) -> tuple[int, Any, str]:
        if token != f"Bearer {GITHUB_TOKEN}":
            return 401, {"message": "Bad credentials"}, ""
        if path == "/user":
            return 403, {"message": "Resource not accessible by integration"}, ""
        if path.startswith("/repos/acme/support/commits/"):
            return 200, self.pulls, ""
        if path == "/repos/acme/support/issues/7/comments":
            if method == "POST":
                self.write(body["body"], BOT)
                return 201, self._shown(self.comments[-1]), ""
            return self._page(query, f"{self.url}{path}", [self._shown(c) for c in self.comments])
        return self._one(method, re.fullmatch(r"/repos/acme/support/issues/comments/(\d+)", path), body, "PATCH", BOT)

    def _gitlab(self, method: str, path: str, query: dict[str, str], token: str, body: Any) -> tuple[int, Any, str]:
        if token != GITLAB_TOKEN:
            return 401, {"message": "401 Unauthorized"}, ""
        if path == "/user":
            return 200, {"username": "project_42_bot"}, ""
        if path.startswith("/projects/42/repository/commits/"):
            return 200, self.pulls, ""
        notes = "/projects/42/merge_requests/7/notes"
        if path == notes:
            if method == "POST":
                self.write(body["body"], "project_42_bot")
                return 201, {}, ""
            shown = [{**c, "author": {"username": c["author"]}, "system": False} for c in self.comments]
            return self._page(query, f"{self.url}/gitlab{path}", shown)
        return self._one(method, re.fullmatch(rf"{notes}/(\d+)", path), body, "PUT", "project_42_bot")

    def _one(self, method: str, found: re.Match[str] | None, body: Any, edit: str, author: str) -> tuple[int, Any, str]:
        comment = next((c for c in self.comments if found and c["id"] == int(found[1])), None)
        if comment is None:
            return 404, {"message": "Not Found"}, ""
        assert comment["author"] == author, "somebody else's comment was touched"
        if method == "DELETE":
            self.comments.remove(comment)
            return 204, None, ""
        if method != edit:
            return 405, {"message": "Method Not Allowed"}, ""
        comment["body"] = body["body"]
        return 200, self._shown(comment), ""

    @staticmethod
    def _shown(comment: dict[str, Any]) -> dict[str, Any]:
        return {"id": comment["id"], "user": {"login": comment["author"]}, "body": comment["body"]}

    @staticmethod
    def _page(query: dict[str, str], url: str, items: list[Any]) -> tuple[int, Any, str]:
        size, page = min(int(query.get("per_page", 30)), 100), int(query.get("page", 1))
        more = len(items) > size * page
        following = urlencode({**query, "page": page + 1})
        link = f'<{url}?{following}>; rel="next", <{url}?page=99>; rel="last"' if more else ""
        return 200, items[size * (page - 1) : size * page], link


@contextmanager
def forge_server() -> Iterator[ForgeServer]:
    """A server at work, on a free port."""
    forge = ForgeServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            parts = urlsplit(self.path)
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            forge.calls.append(f"{self.command} {parts.path}")
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            token = self.headers.get("Authorization") or self.headers.get("PRIVATE-TOKEN") or ""
            forced = forge.answers.pop(0) if forge.answers else None
            if isinstance(forced, int):
                self._send(forced, {"message": "as told"}, "")
                return
            done = forge.handle(self.command, parts.path, query, token, json.loads(raw) if raw else None)
            if forced == "lost":
                self.close_connection = True
                return
            self._send(*done)

        def _send(self, status: int, told: Any, link: str) -> None:
            raw = b"" if status == 204 else json.dumps(told).encode()
            self.send_response(status)
            for name, value in {**({"Link": link} if link else {}), **forge.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _answer  # noqa: N815

        def log_message(self, *_: Any) -> None:
            return None

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        forge.url = f"http://127.0.0.1:{server.server_port}"
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield forge
        finally:
            server.shutdown()
            thread.join()
