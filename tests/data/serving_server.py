"""A TF Serving without TensorFlow: model config file, labels and REST status, by the rules of its server_core.

Only for tests, on loopback. A reload checks labels first and changes nothing at all where one fails; one base path
that is missing stops the look at all of them; a label's status is that of all versions, its metadata those of its own.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from serving_poller import All, Latest, Policy, Poller, Specific

_FIELD = descriptor_pb2.FieldDescriptorProto


def _server_config() -> Any:
    """ModelServerConfig with the fields that we write, by the names and numbers of TF Serving's protos."""
    file = descriptor_pb2.FileDescriptorProto(name="serving.proto", package="t", syntax="proto3")

    def message(name: str, *fields: tuple[str, int, int, str], repeated: tuple[str, ...] = ()) -> None:
        made = file.message_type.add(name=name)
        for field_name, number, kind, of in fields:
            label = _FIELD.LABEL_REPEATED if field_name in repeated else _FIELD.LABEL_OPTIONAL
            added = made.field.add(name=field_name, number=number, type=kind, label=label)
            if of:
                added.type_name = f".t.{of}"

    text, whole, nested = _FIELD.TYPE_STRING, _FIELD.TYPE_INT64, _FIELD.TYPE_MESSAGE
    message("Latest", ("num_versions", 1, _FIELD.TYPE_UINT32, ""))
    message("All")
    message("Specific", ("versions", 1, whole, ""), repeated=("versions",))
    choices = (("latest", 100, nested, "Latest"), ("all", 101, nested, "All"), ("specific", 102, nested, "Specific"))
    message("Policy", *choices)
    message("Label", ("key", 1, text, ""), ("value", 2, whole, ""))
    message(
        "Model",
        ("name", 1, text, ""),
        ("base_path", 2, text, ""),
        ("model_platform", 4, text, ""),
        ("model_version_policy", 7, nested, "Policy"),
        ("version_labels", 8, nested, "Label"),
        repeated=("version_labels",),
    )
    message("Models", ("config", 1, nested, "Model"), repeated=("config",))
    message("Server", ("model_config_list", 1, nested, "Models"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("t.Server"))


ServerConfig = _server_config()


def read_models(path: Path) -> dict[str, Any]:
    """Name -> model of a config file, as protobuf's own parser reads it."""
    return {model.name: model for model in text_format.Parse(path.read_text(), ServerConfig()).model_config_list.config}


def policy_of(model: Any) -> Policy:
    """The version policy of a model."""
    policy = model.model_version_policy
    if policy.HasField("specific"):
        return Specific(frozenset(policy.specific.versions))
    return All() if policy.HasField("all") else Latest(policy.latest.num_versions)


@dataclass
class ModelServer:
    """A server with --allow_version_labels_for_unavailable_models, unless told otherwise."""

    config: Path
    allows_new_labels: bool = True
    pollers: dict[str, Poller] = field(default_factory=dict)
    labels: dict[tuple[str, str], int] = field(default_factory=dict)
    refused: str = ""
    """why the last reload failed"""

    def reload(self) -> bool:
        """Read the config file; whether it was accepted."""
        models = read_models(self.config)
        for model in models.values():
            assert Path(model.base_path).is_absolute()
            assert model.model_platform == "tensorflow"
        labels = {(m.name, label.key): label.value for m in models.values() for label in m.version_labels}
        for (name, label), version in labels.items():
            is_moved = self.labels.get((name, label), version) != version
            poller = self.pollers.get(name)
            if (is_moved or not self.allows_new_labels) and version not in (poller.loaded if poller else ()):
                self.refused = (
                    f"Request to assign label to version {version} of model {name}, which is not currently available"
                )
                return False
        self.labels, self.refused = labels, ""
        for name in [*self.pollers]:
            if name not in models:
                del self.pollers[name]
        for name, model in models.items():
            poller = self.pollers.setdefault(name, Poller(Path(model.base_path)))
            poller.base_path, poller.policy = Path(model.base_path), policy_of(model)
        return True

    def poll(self, now: float = 0.0) -> None:
        """Look at the base paths of all models; at none where one is missing."""
        wanted = {name: poller.list_versions() for name, poller in self.pollers.items()}
        for name, versions in wanted.items():
            if versions is not None and None not in wanted.values():
                self.pollers[name].aspire(versions)
            self.pollers[name].manage(now)

    def loaded(self, name: str) -> set[int]:
        """Versions of a model that answer."""
        return self.pollers[name].loaded if name in self.pollers else set()

    def ask(self, name: str, label: str | None = None) -> int | None:
        """The version that answers a request, by a label or without; None where it is an error."""
        if label is None:
            return max(self.loaded(name), default=None)
        version = self.labels.get((name, label))
        return version if version in self.loaded(name) else None

    def answer(self, path: str) -> tuple[int, dict[str, Any]]:
        """Status and JSON of a GET."""
        match = re.fullmatch(r"/v1/models/([^/:]+)(?:/versions/(\d+)|/labels/([^/:]+))?(/metadata)?", path)
        if match is None:
            return 404, {"error": f"Malformed request: GET {path}"}
        name, version, label, metadata = match.groups()
        if metadata:
            named = self.ask(name, label)
            if named is None:
                return 400, {"error": f"Unrecognized servable version label: {label}"}
            return 200, {"model_spec": {"name": name, "signature_name": "", "version": str(named)}, "metadata": {}}
        managed = self.pollers[name].managed if name in self.pollers else {}
        listed = {n: h for n, h in managed.items() if version is None or n == int(version)}
        if not listed:
            return 404, {"error": f"Could not find version {version} of model {name}"}
        return 200, {"model_version_status": [_status(number, harness) for number, harness in listed.items()]}


def _status(number: int, harness: Any) -> dict[str, Any]:
    fault = harness.attempts and harness.state in ("LOADING", "END")
    message = f"Could not find SavedModel .pb or .pbtxt at supplied export directory path: {harness.path}"
    status = (
        {"error_code": "NOT_FOUND", "error_message": message} if fault else {"error_code": "OK", "error_message": ""}
    )
    return {"version": str(number), "state": harness.state, "status": status}


@contextmanager
def rest(server: ModelServer, *, reads_config: bool = True) -> Iterator[str]:
    """The server's REST interface on loopback; it reads config and base paths anew with every request."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with lock:
                if reads_config:
                    server.reload()
                server.poll()
                status, document = server.answer(self.path)
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_address[1]}"
        finally:
            http.shutdown()
            thread.join()
