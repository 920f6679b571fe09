"""The page: files of this package, read once, under a policy that lets nothing leave the origin."""

import base64
import hashlib
import re
from dataclasses import dataclass
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response

from mtp_mlx.server.errors import Refused

FOLDER = "page"
FIRST = "index.html"
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".json": "application/json",
}
INLINE = re.compile(rb"<(script|style)>(.*?)</\1>", re.DOTALL)
POLICY = (
    "default-src 'none'; script-src 'self'{script}; style-src 'self'{style}; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True)
class Page:
    """Files by name, and the policy of the first."""

    contents: dict[str, bytes]
    policy: str

    @staticmethod
    def read() -> "Page":
        """What this package brings along."""
        folder = files("mtp_mlx.server").joinpath(FOLDER)
        contents = {
            file.name: file.read_bytes()
            for file in (folder.iterdir() if folder.is_dir() else ())
            if kind(file.name) is not None
        }
        return Page(contents, policy(contents.get(FIRST, b"")))

    async def first(self, request: Request) -> Response:
        """GET /"""
        return self._reply(FIRST)

    async def file(self, request: Request) -> Response:
        """GET /page/NAME"""
        return self._reply(request.path_params["name"])

    def _reply(self, name: str) -> Response:
        if name not in self.contents:
            raise Refused(404, "not_found", "the page has no such file")
        headers = {
            "content-security-policy": self.policy,
            "referrer-policy": "no-referrer",
            "cross-origin-opener-policy": "same-origin",
            "cache-control": "no-cache",
        }
        return Response(self.contents[name], media_type=kind(name), headers=headers)


def kind(name: str) -> str | None:
    """The media type of a file, None for what is not served."""
    return KINDS.get(name[name.rfind(".") :])


def policy(page: bytes) -> str:
    """The policy of a page: its own files, and the inline scripts and styles that it has now."""
    hashes = {"script": "", "style": ""}
    for tag, text in INLINE.findall(page):
        value = base64.b64encode(hashlib.sha256(text).digest()).decode()
        hashes[tag.decode()] += f" 'sha256-{value}'"
    return POLICY.format(**hashes)
