"""Sending a checkpoint to the Hugging Face hub: against a plain fake, and with its own library over a real socket."""

from __future__ import annotations

import base64
import hashlib
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import attrs
import pytest

import tinkex
from tinkex.local import LocalServer
from tinkex.recipes import hub as module
from tinkex.recipes.hub import HubError, push_checkpoint, write_model_card
from tinkex.testing.engine import ScriptedEngine
from tinkex.types import WeightsInfoResponse

REPO = "me/small"
PAGE = f"https://huggingface.co/{REPO}"  # the library takes no pages elsewhere
PATH = "tinker://run-1:train:0/sampler_weights/one"
ADAPTER = {"adapter_config.json", "adapter_model.safetensors"}


class FakeHub:
    """Keeps what it is told, and refuses what it is asked to refuse."""

    def __init__(self, *, public=False, card=None, refuses=None):
        self.public = public
        self.card = card  # a file
        self.refuses = refuses or {}
        self.calls = []
        self.sent = {}

    def _note(self, name, *given, **named):
        self.calls.append((name, given, named))
        if name in self.refuses:
            raise self.refuses[name]

    def create_repo(self, repo_id, **named):
        self._note("create_repo", repo_id, **named)
        return f"https://hub.test/{repo_id}"

    def model_info(self, repo_id):
        self._note("model_info", repo_id)
        return SimpleNamespace(private=not self.public)

    def create_branch(self, repo_id, **named):
        self._note("create_branch", repo_id, **named)

    def file_exists(self, repo_id, name, revision):
        self._note("file_exists", repo_id, name, revision)
        return self.card is not None

    def hf_hub_download(self, repo_id, name, revision):
        self._note("hf_hub_download", repo_id, name, revision)
        return str(self.card)

    def upload_folder(self, *, folder_path, **named):
        self._note("upload_folder", **named)
        self.sent = {path.name: path.read_bytes() for path in Path(folder_path).iterdir()}
        pr_url = f"https://hub.test/{REPO}/discussions/1" if named["create_pr"] else None
        return SimpleNamespace(commit_url=f"https://hub.test/{REPO}/commit/1", pr_url=pr_url)

    def named(self, call):
        """The named arguments of the only call of a kind."""
        ((_, _, named),) = [entry for entry in self.calls if entry[0] == call]
        return named


class FakeRest:
    """Has one checkpoint, of these files."""

    def __init__(self, **files):
        config = {"peft_type": "LORA", "r": 8, "base_model_name_or_path": "acme/small"}
        self.files = {"adapter_config.json": json.dumps(config), "adapter_model.safetensors": "weights"}
        self.files |= {name.replace("__", "."): text for name, text in files.items()}

    def get_weights_info_by_tinker_path(self, path):
        info = WeightsInfoResponse(base_model="acme/small", is_lora=True, lora_rank=4)
        return SimpleNamespace(result=lambda: info)

    def download_checkpoint(self, path, folder, *, progress=None):
        folder.mkdir()
        for name, text in self.files.items():
            if text is not None:
                (folder / name).write_text(text)


def test_an_adapter_is_sent_private_with_a_card():
    """The repository is private, only what is needed to load the adapter goes there, and the page is returned."""
    hub = FakeHub()
    pushed = push_checkpoint(FakeRest(), PATH, REPO, api=hub)
    assert (pushed.url, pushed.commit_url) == (f"https://hub.test/{REPO}", f"https://hub.test/{REPO}/commit/1")
    assert hub.named("create_repo") == {"private": True, "exist_ok": True}
    assert set(hub.sent) == {*ADAPTER, "README.md"}
    sent = hub.named("upload_folder")
    assert (sent["repo_id"], sent["revision"], sent["create_pr"], sent["allow_patterns"]) == (REPO, None, False, None)
    assert {"checkpoint_complete", "optimizer*", "tinkex.json"} == set(sent["ignore_patterns"])
    assert PATH in sent["commit_message"]


def test_every_option_reaches_the_hub(tmp_path):
    """Branch, message, patterns and folder; patterns of one's own replace the usual ones."""
    hub, kept = FakeHub(public=True), tmp_path / "kept"
    push_checkpoint(
        FakeRest(),
        PATH,
        REPO,
        private=False,
        revision="next",
        commit_message="better",
        allow_patterns=["*.json"],
        ignore_patterns=["secret*"],
        folder=kept,
        api=hub,
    )
    assert hub.named("create_repo")["private"] is False
    assert hub.named("create_branch") == {"branch": "next", "exist_ok": True}
    sent = hub.named("upload_folder")
    assert (sent["revision"], sent["commit_message"]) == ("next", "better")
    assert (sent["allow_patterns"], sent["ignore_patterns"]) == (["*.json"], ["secret*"])
    assert ADAPTER <= {path.name for path in kept.iterdir()}


def test_a_pull_request_has_a_page_of_its_own():
    """It goes to the default branch, so a branch beside it is refused before anything is sent."""
    hub = FakeHub()
    assert push_checkpoint(FakeRest(), PATH, REPO, create_pr=True, api=hub).url.endswith("/discussions/1")
    assert hub.named("upload_folder")["create_pr"] is True
    unused = FakeHub()
    with pytest.raises(tinkex.InvalidInputError, match="leave out revision"):
        push_checkpoint(FakeRest(), PATH, REPO, create_pr=True, revision="next", api=unused)
    assert unused.calls == []


def test_weights_do_not_become_public_by_accident():
    """A repository that exists and is public is refused unless that was asked for."""
    hub = FakeHub(public=True)
    with pytest.raises(tinkex.InvalidInputError, match="public"):
        push_checkpoint(FakeRest(), PATH, REPO, api=hub)
    assert "upload_folder" not in [name for name, *_ in hub.calls]


OTHER = "# Mine\n\n| checkpoint | to be trained |\n"


@pytest.mark.parametrize(
    ("files", "card", "options"),
    [
        ({"README__md": "mine"}, None, {}),
        ({"README__md": "mine"}, OTHER.replace("to be trained", "`tinker://a:train:0/weights/1`"), {}),
        ({}, OTHER, {}),
        ({}, None, {"model_card": False}),
    ],
)
def test_a_card_is_not_written_over_another(files, card, options, tmp_path):
    """That of the checkpoint or of the repository stays, and none is written if none is wanted."""
    hub = FakeHub()
    if card is not None:
        hub.card = tmp_path / "README.md"
        hub.card.write_text(card)
    push_checkpoint(FakeRest(**files), PATH, REPO, api=hub, **options)
    assert hub.sent.get("README.md") == (b"mine" if files else None)


def test_the_rows_of_an_earlier_push_follow_the_checkpoint(tmp_path):
    """Whatever else was written into the card since stays, and a card that is right is not sent again."""
    first, second = FakeHub(), FakeHub(card=tmp_path / "README.md")
    push_checkpoint(FakeRest(), "tinker://run-0:train:0/weights/zero", REPO, api=first)
    edited = first.sent["README.md"].decode() + "\n## Results\n\n| rank of the answer | 1 |\n"
    second.card.write_text(edited)
    rest = FakeRest(adapter_config__json='{"r": 16, "base_model_name_or_path": "acme/small"}')
    push_checkpoint(rest, PATH, REPO, revision="next", api=second)
    assert ("hf_hub_download", (REPO, "README.md", "next"), {}) in second.calls
    sent = second.sent["README.md"].decode()
    rows = {
        "| rank | 8 |": "| rank | 16 |",
        "`run-0:train:0`": "`run-1:train:0`",
        "tinker://run-0:train:0/weights/zero": PATH,
    }
    for old, new in rows.items():
        assert old in edited
        edited = edited.replace(old, new)
    assert sent == edited
    second.card.write_text(sent)
    push_checkpoint(rest, PATH, REPO, api=second)
    assert "README.md" not in second.sent


def test_the_card_says_what_the_adapter_is(tmp_path):
    """Its head is YAML with base model, library and tags and without a license; its text tells where it comes from."""
    yaml = pytest.importorskip("yaml")
    (tmp_path / "adapter_config.json").write_text('{"r": 8}')
    info = WeightsInfoResponse(base_model='odd: "name"', is_lora=True, lora_rank=4)
    path = write_model_card(tmp_path, info, PATH, REPO)
    _, head, text = path.read_text().split("---\n", 2)
    card = yaml.safe_load(head)
    assert (card["base_model"], card["library_name"]) == (info.base_model, "peft")
    assert {"lora", "tinker", "tinkex"} <= set(card["tags"])
    assert "license" not in card
    assert "| rank | 8 |" in text
    assert PATH in text
    assert "run-1:train:0" in text
    compile(text.split("```python\n")[1].split("```")[0], "card", "exec")


def test_a_base_model_that_the_server_left_out_is_filled_in():
    """``peft`` finds the base model by it."""
    hub = FakeHub()
    push_checkpoint(FakeRest(adapter_config__json='{"peft_type": "LORA", "r": 8}'), PATH, REPO, api=hub)
    config = json.loads(hub.sent["adapter_config.json"])
    assert config == {"peft_type": "LORA", "r": 8, "base_model_name_or_path": "acme/small"}


@pytest.mark.parametrize(
    ("files", "text"),
    [
        ({"adapter_model__safetensors": None}, "no adapter_model.safetensors, only adapter_config.json"),
        ({"adapter_config__json": "{"}, "broken adapter_config.json"),
        ({"adapter_config__json": "[]"}, "broken adapter_config.json: not an object"),
    ],
)
def test_what_peft_would_not_load_is_not_sent(files, text):
    """The error says what is wrong with it."""
    hub = FakeHub()
    with pytest.raises(tinkex.InvalidInputError, match=text):
        push_checkpoint(FakeRest(**files), PATH, REPO, api=hub)
    assert hub.sent == {}


@pytest.mark.parametrize(
    "secret", ["tml-" + "a1" * 12, "hf_" + "b2" * 16, "eyJhbGciOiJIUzI1.eyJzdWIiOiIxMjM0.x", "of-any-form-7"]
)
@pytest.mark.parametrize("name", ["adapter_config__json", "README__md"])
def test_no_key_is_sent(secret, name, monkeypatch):
    """Neither one of a form that is known nor that of the environment, in whatever file it stands."""
    monkeypatch.setenv("TINKER_API_KEY", "of-any-form-7")
    hub = FakeHub()
    with pytest.raises(tinkex.InvalidInputError, match="looks like a key") as caught:
        push_checkpoint(FakeRest(**{name: json.dumps({"r": 8, "note": secret})}), PATH, REPO, api=hub)
    assert secret not in str(caught.value)
    assert hub.sent == {}


def test_a_name_that_is_none_is_refused_before_anything_is_asked():
    """Of the repository, or of the checkpoint."""
    hub = FakeHub()
    for path, repo in ((PATH, "small"), (PATH, "a/b/c"), (PATH, "a b/c"), ("one", REPO)):
        with pytest.raises(tinkex.InvalidInputError):
            push_checkpoint(FakeRest(), path, repo, api=hub)
    assert hub.calls == []


def answered(status, text="no"):
    """An error of the hub's library."""
    error = RuntimeError(f"{status} Client Error\nmore lines")
    error.response, error.server_message = SimpleNamespace(status_code=status), text
    return error


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (answered(401, "Invalid username"), "hub answered 401: Invalid username; log in with 'hf auth login'"),
        (answered(403, None), "hub answered 403: 403 Client Error; the token may not write there"),
        (answered(500), "hub answered 500: no; check the network and try again"),
        (RuntimeError(), "failed: RuntimeError; check the network"),
        (ValueError("bad name"), "failed: bad name$"),
    ],
)
@pytest.mark.parametrize("call", ["create_repo", "upload_folder"])
def test_errors_of_the_hub_end_with_the_next_step(error, text, call):
    """In one line, with the status, and with the error of the library as the cause."""
    with pytest.raises(HubError, match=text) as caught:
        push_checkpoint(FakeRest(), PATH, REPO, api=FakeHub(refuses={call: error}))
    assert caught.value.__cause__ is error
    assert len(str(caught.value).splitlines()) == 1
    assert caught.value.status_code == getattr(getattr(error, "response", None), "status_code", None)


def test_without_the_library_the_error_names_the_extra(monkeypatch):
    """Before anything is fetched."""
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(tinkex.ConfigurationError, match=r'pip install "tinkex\[hub\]"'):
        push_checkpoint(FakeRest(), PATH, REPO)


# --- The library itself, over a real socket -----------------------------------------------------------------------


@attrs.define
class HubServer:
    """As much of the hub as a push uses: everything is a small file, sent within the commit."""

    url: str = ""
    refusal: int | None = None
    private: bool = True
    requests: list[tuple[str, str]] = attrs.field(factory=list)
    created: dict[str, object] = attrs.field(factory=dict)
    files: dict[str, bytes] = attrs.field(factory=dict)
    agents: set[str] = attrs.field(factory=set)


class Handler(BaseHTTPRequestHandler):
    """Answers for ``self.server.hub``."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def _answer(self, status, body=None, **headers):
        raw = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        for name, text in {"Content-Type": "application/json", "Content-Length": str(len(raw)), **headers}.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(raw)

    def _body(self):
        return self.rfile.read(int(self.headers.get("content-length") or 0))

    def _begin(self):
        hub = self.server.hub
        path = self.path.partition("?")[0]
        hub.requests.append((self.command, path))
        hub.agents.add(self.headers.get("user-agent", ""))
        return hub, path

    def do_HEAD(self):
        self._send_file(*self._begin())

    def _send_file(self, hub, path):
        raw = hub.files.get(path.rpartition("/")[2])
        if raw is None:
            self._answer(404, X_Error_Code="EntryNotFound")
            return
        self.send_response(200)
        etag = hashlib.sha256(raw).hexdigest()
        for name, text in {"Content-Length": len(raw), "ETag": f'"{etag}"', "X-Repo-Commit": "1" * 40}.items():
            self.send_header(name, str(text))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(raw)

    def do_GET(self):
        hub, path = self._begin()
        if hub.refusal:
            self._answer(hub.refusal, {"error": "not you"})
            return
        if "/resolve/" in path:
            self._send_file(hub, path)
            return
        self._answer(200, {"id": REPO, "private": hub.private, "sha": "0" * 40, "siblings": [], "tags": []})

    def do_POST(self):
        (hub, path), body = self._begin(), self._body()
        if hub.refusal:
            self._answer(hub.refusal, {"error": "not you"})
        elif path == "/api/repos/create":
            hub.created = json.loads(body)
            self._answer(200, {"url": PAGE, "name": REPO, "id": REPO})
        elif path == "/api/validate-yaml":
            self._answer(200, {"errors": [], "warnings": []})
        elif "/preupload/" in path:
            wanted = [item["path"] for item in json.loads(body)["files"]]
            modes = [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in wanted]
            self._answer(200, {"files": modes})
        elif "/commit/" in path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    hub.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self._answer(200, {"commitUrl": f"{PAGE}/commit/{'1' * 40}", "commitOid": "1" * 40})
        else:
            self._answer(200, {})


@pytest.fixture
def hub_server(tmp_path, monkeypatch):
    """A hub on this machine, and a library that finds no login."""
    pytest.importorskip("huggingface_hub")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.hub = HubServer(url=f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, name="hub")
        thread.start()
        try:
            yield server.hub
        finally:
            server.shutdown()
            thread.join()


def library(hub_server):
    """The hub's own client, as push_checkpoint makes it, for that hub."""
    api = module._make_api("hf_test")
    api.endpoint = hub_server.url
    return api


def test_the_library_of_the_hub_sends_a_checkpoint_of_the_server(hub_server, tmp_path):
    """From one server to another: the files that arrive are those of the checkpoint, and a card."""
    with LocalServer(ScriptedEngine(["acme/small"]), data_dir=tmp_path / "data") as server:
        settings = {"base_url": server.base_url, "api_key": server.api_key, "telemetry": False}
        with tinkex.ServiceClient(**settings) as service:
            train = service.create_lora_training_client("acme/small", rank=4)
            path = train.save_weights_for_sampler("one").result(30).path
            rest = service.create_rest_client()
            earlier = train.save_weights_for_sampler("zero").result(30).path
            push_checkpoint(rest, earlier, REPO, api=library(hub_server))
            assert earlier in hub_server.files["README.md"].decode()
            pushed = push_checkpoint(rest, path, REPO, revision="next", api=library(hub_server))
            rest.download_checkpoint(path, tmp_path / "again")
    assert (pushed.url, pushed.commit_url) == (f"{hub_server.url}/{REPO}", f"{PAGE}/commit/{'1' * 40}")
    # Later releases of the library send the visibility by its name.
    assert ("private" if hub_server.created.get("private") else hub_server.created["visibility"]) == "private"
    assert ("POST", f"/api/models/{REPO}/branch/next") in hub_server.requests
    assert set(hub_server.files) == {*ADAPTER, "README.md"}
    for name in ADAPTER:
        assert hub_server.files[name] == (tmp_path / "again" / name).read_bytes()
    assert path in hub_server.files["README.md"].decode()
    assert server.api_key.encode() not in b"".join(hub_server.files.values())
    assert any(agent.startswith("tinkex/") for agent in hub_server.agents)


def test_a_refusal_of_the_hub_is_one_line(hub_server):
    """As the library raises it."""
    hub_server.refusal = 401
    with pytest.raises(HubError, match=r"answered 401.*hf auth login") as caught:
        push_checkpoint(FakeRest(), PATH, REPO, api=library(hub_server))
    assert len(str(caught.value).splitlines()) == 1


def test_a_hub_that_is_not_there_is_one_line(hub_server):
    """As the library raises it."""
    api = library(hub_server)
    api.endpoint = "http://127.0.0.1:9"
    with pytest.raises(HubError, match="check the network"):
        push_checkpoint(FakeRest(), PATH, REPO, api=api)


@pytest.mark.engine
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft reads it
def test_what_arrives_is_loaded_by_peft(hub_server, tmp_path):
    """The files of a trained model, as they arrive at the hub, change the base model's logits as on the server."""
    torch = pytest.importorskip("torch")
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    from tinkex.data import TINY_PATH, builtin_models
    from tinkex.local.engine.torch_hf import TorchEngine

    tokens = [40, 41, 42, 43, 44]
    datum = tinkex.Datum(tinkex.ModelInput.from_ints(tokens[:-1]), {"target_tokens": tokens[1:]})
    engine = TorchEngine(builtin_models(), threads=1, device="cpu")
    with LocalServer(engine, data_dir=tmp_path / "data") as server:
        settings = {"base_url": server.base_url, "api_key": server.api_key, "telemetry": False}
        with tinkex.ServiceClient(**settings) as service:
            train = service.create_lora_training_client("tinkex/tiny", rank=4, seed=1)
            train.forward_backward([datum], "cross_entropy")
            train.optim_step(tinkex.AdamParams(learning_rate=1e-2))
            expected = train.forward([datum], "cross_entropy").result(60).loss_fn_outputs[0]["logprobs"].to_torch()
            path = train.save_state("one").result(60).path
            push_checkpoint(service.create_rest_client(), path, REPO, api=library(hub_server))
    assert set(hub_server.files) == {*ADAPTER, "README.md"}  # and no state of the optimizer
    arrived = tmp_path / "arrived"
    arrived.mkdir()
    for name, content in hub_server.files.items():
        (arrived / name).write_bytes(content)
    base = transformers.AutoModelForCausalLM.from_pretrained(str(TINY_PATH), dtype=torch.float32)
    with torch.no_grad():
        logits = peft.PeftModel.from_pretrained(base, str(arrived))(torch.tensor([tokens[:-1]])).logits[0]
    logprobs = logits.log_softmax(-1).gather(-1, torch.tensor(tokens[1:]).unsqueeze(-1)).squeeze(-1)
    assert torch.allclose(logprobs, expected, atol=1e-4)
