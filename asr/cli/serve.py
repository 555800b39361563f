"""`asr serve`: recognition for other programs, over HTTP and sockets, and a page in the browser."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from asr.cli.loading import loading_fast
from asr.cli.option_groups import SectionedCommand, with_options
from asr.errors import ConfigError, reason
from asr.io.extras import require
from asr.io.terminal import show, tell

if TYPE_CHECKING:
    from asr.inference.recognizer import Recognizer
    from asr.serving.config import ServeConfig
    from asr.serving.engine import Engine

app = typer.Typer()

TOKEN = "ASR_TOKEN"  # in the environment
INCLUDED = "an4"  # the name of the included model
_NAME = re.compile(r"[\w.:@-]{1,100}")
_TOKEN = re.compile(r"[!-~]{1,1000}")
_ORIGIN = re.compile(r"https?://[^/\s]+")
_Wyoming = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=65535,
        metavar="PORT",
        help="Also serve the Wyoming protocol (Home Assistant) on this port.",
    ),
]
_Delay = Annotated[
    float | None,
    typer.Option(
        min=0,
        metavar="SECONDS",
        help="Longest delay of live recognition, of models whose model.chunk is a range. "
        "[default: the shortest]",
    ),
]
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True)
class AccessOptions:
    """Who can use the server."""

    SECTION: ClassVar[str] = "Access"

    host: Annotated[
        str, typer.Option(help="Address to listen at; 0.0.0.0 is all of this machine.")
    ] = "127.0.0.1"
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen at; 0 is any free one.")
    ] = 8000
    token_file: Annotated[
        Path | None,
        typer.Option(help=f"File with the token that clients must send. [default: ${TOKEN}]"),
    ] = None
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL", help="Other web site whose pages may use the server; repeatable."
        ),
    ] = None

    def config(self) -> ServeConfig:
        """Raises ConfigError for a wrong token or origin."""
        from asr.serving.config import ServeConfig

        token = self._token()
        origins = tuple(_as_sent(origin.rstrip("/")) for origin in self.allow_origin or ())
        for origin in origins:
            if not _ORIGIN.fullmatch(origin):
                raise ConfigError(
                    f"expected --allow-origin like https://example.org, got {origin!r}: correct it"
                )
        hosts = None
        if token is None and is_loopback(self.host):
            hosts = LOOPBACK | {self.host.lower()}
        return ServeConfig(token, origins, hosts)

    def _token(self) -> str | None:
        token, where = os.environ.get(TOKEN, ""), f"${TOKEN}"
        if self.token_file is not None:
            where = str(self.token_file)
            try:
                token = self.token_file.read_text(encoding="utf-8")
            except (OSError, ValueError) as error:
                raise ConfigError(f"{where}: expected a token, got {reason(error)}") from None
        if not token and self.token_file is None:
            return None
        token = token.strip()  # a blank one is a mistake, and must not let everyone in
        if not _TOKEN.fullmatch(token):
            raise ConfigError(
                f"{where}: expected a token of 1 to 1000 ASCII characters without spaces, got "
                "another text: write a new one, as with: openssl rand -hex 32"
            )
        return token


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


@app.command(
    cls=SectionedCommand, epilog="Example: asr serve exp/an4/model digits=exp/digits/model"
)
@with_options
def serve(
    access: AccessOptions,
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[[NAME=]MODEL]...",
            help="Model folders, with names for clients; default: the included AN4 model.",
        ),
    ] = None,
    wyoming: _Wyoming = None,
    delay: _Delay = None,
    review: Annotated[
        Path | None,
        typer.Option(
            metavar="MANIFEST",
            help="Manifest or folder of recordings whose texts are to be corrected on a page.",
        ),
    ] = None,
) -> None:
    """Serve models: OpenAI's HTTP interface, sockets for live audio, and a page in the browser.

    Ctrl-C and SIGTERM finish the requests that have been accepted.
    """
    for package in ("fastapi", "uvicorn", "python_multipart", "prometheus_client", "websockets"):
        require(package)
    config = access.config()
    folders = name_models(models or [])
    with loading_fast():
        from asr.serving.engine import Engine
        from asr.serving.review import open_review
        from asr.serving.server import address_of, listen, make_server

    with ExitStack() as opened:  # before models load, which takes longer
        listening = opened.enter_context(listen(access.host, access.port))
        if wyoming is not None:
            own = opened.enter_context(listen(access.host, wyoming, "--wyoming"))
            config = replace(config, wyoming=own)
        if review is not None:
            recordings = opened.enter_context(open_review(review, lambda x: tell(f"note: {x}")))
            config = replace(config, review=recordings)
        engine = Engine(_load(folders, delay))
        _warn(access.host, config, engine)

        def ready() -> None:
            address = address_of(listening)
            show(f"serving {', '.join(folders)} at {address}")
            if config.wyoming is not None:
                show(f"serving Home Assistant at {access.host} port {wyoming}")
            if config.review is not None:
                total, written = len(config.review.ids), config.review.path
                show(f"reviewing {total} recordings at {address}review; texts go to {written}")

        server = make_server(engine, config, ready)
        server.run(sockets=[listening])
        if server.force_exit:
            raise KeyboardInterrupt


def _warn(host: str, config: ServeConfig, engine: Engine) -> None:
    if not is_loopback(host):
        if config.token is None:
            tell("warning: everyone who reaches this machine can use the server: give --token-file")
        elif config.wyoming is not None:
            tell("warning: everyone who reaches this machine can use --wyoming, which has no token")
    if config.wyoming is not None:
        from asr.serving.wyoming_server import languages_of

        for name in engine.models:
            if not languages_of(engine, name):
                tell(
                    f"warning: expected the languages of {name}, got none, so Home Assistant "
                    'cannot choose it: add to its info.json: "about": {"languages": ["en"]}'
                )


def name_models(arguments: Sequence[str]) -> dict[str, Path | None]:
    """The folder of each model by its name; None is the included model.

    Raises ConfigError for names that are impossible or given twice.

    >>> {name: str(path) for name, path in name_models(["exp/an4/model", "own=x"]).items()}
    {'an4': 'exp/an4/model', 'own': 'x'}
    """
    if not arguments:
        return {INCLUDED: None}
    found: dict[str, Path | None] = {}
    for argument in arguments:
        name, separator, folder = argument.partition("=")
        if not separator or Path(argument).exists():
            path = Path(argument)
            parts = [part for part in path.absolute().parts if part != "model"]
            name, folder = parts[-1], argument
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"expected a name of letters and digits for the model {folder!r}, got {name!r}: "
                "give NAME=MODEL"
            )
        if name in found:
            raise ConfigError(
                f"expected a name for each model, got {name!r} twice: give NAME=MODEL"
            )
        found[name] = Path(folder)
    return found


def _load(folders: dict[str, Path | None], delay: float | None) -> dict[str, Recognizer]:
    """`delay` applies to every model that has a choice. Raises ConfigError if there is none."""
    with loading_fast():
        from asr.inference.recognizer import load_recognizer

        models = {name: load_recognizer(folder) for name, folder in folders.items()}
    if delay is not None:
        chosen = {n: m.with_delay(delay) for n, m in models.items() if m.has_delays}
        if not chosen:
            raise ConfigError(
                "expected a model whose model.chunk is a range with --delay, got none: leave it out"
            )
        models |= chosen
    return models


def _as_sent(origin: str) -> str:
    """An origin as browsers send it.

    >>> _as_sent("https://Example.org:443"), _as_sent("http://localhost:8080")
    ('https://example.org', 'http://localhost:8080')
    """
    origin = origin.lower()
    usual = {"https:": ":443", "http:": ":80"}.get(origin.partition("//")[0], "")
    return origin.removesuffix(usual)
