"""Checkpoints over HTTP: saving, loading, listing, changing, fetching, and what survives."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime

import pytest
import requests

from tinkex.local import Limits
from tinkex.testing.engine import ScriptedEngine


def save(api, model, seq, name, **more):
    """Save a checkpoint and return its path."""
    return api.run("save_weights", {"model_id": model, "path": name, "seq_id": seq, **more})["path"]


def loss(api, model, seq):
    """Ask a model for its loss, which tells how many steps its weights have."""
    return api.run("forward", {"model_id": model, "seq_id": seq, "forward_input": api.batch()})["metrics"]["loss:sum"]


def test_a_saved_model_can_be_loaded_into_another(api):
    """The weights are those of the moment of saving; the load may be any operation of the model."""
    session = api.session()
    model, other = api.model(session, 0), api.model(session, 1)
    api.run("optim_step", api.optim_step(model, 1))
    trained = loss(api, model, 2)
    path = save(api, model, 3, "step-1")
    assert path == f"tinker://{model}/weights/step-1"
    assert loss(api, other, 1) != trained
    load = {"model_id": other, "seq_id": 2, "path": path, "optimizer": True}
    assert api.run("load_weights", load) == {"path": path, "model_id": other, "type": "load_weights"}
    assert loss(api, other, 3) == trained


def test_a_model_can_be_made_from_a_checkpoint_in_one_call(api):
    """The oldest way takes three calls, the newest this one; rank and base come from the checkpoint."""
    session = api.session()
    model = api.model(session, rank=4)
    api.run("optim_step", api.optim_step(model, 1))
    path = save(api, model, 2, "a")
    body = {"session_id": session, "model_seq_id": 5, "path": path, "optimizer": False}
    promise = api.post("load_weights", body)
    assert promise["model_id"] == f"{session}:train:5"
    assert api.post("load_weights", body) == promise
    assert api.result(promise["request_id"])["model_id"] == f"{session}:train:5"
    assert api.post("get_info", {"model_id": promise["model_id"]})["lora_rank"] == 4
    assert loss(api, promise["model_id"], 1) == loss(api, model, 3)


def test_a_model_whose_load_fails_is_not_made(serve, engine):
    """Nothing half-made stays in the engine or takes the place of another."""
    api = serve(Limits(live_models=2))
    session = api.session()
    path = save(api, api.model(session), 1, "a")
    engine.fail("load", OSError("disk"))
    promise = api.post("load_weights", {"session_id": session, "model_seq_id": 1, "path": path, "optimizer": True})
    assert "disk" in api.result(promise["request_id"])["error"]
    assert engine.operations(promise["model_id"]) == ["create_model", "load", "drop_model"]
    assert api.model(session, 2)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("tinker://s:train:0/weights/none", "deleted"),
        ("tinker://s:train:0/sampler_weights/x", "save_state"),
        ("tinker://../weights/x", "deleted"),
        ("tinker://s:train:0/weights/..", "deleted"),
        ("nonsense", "tinker://<run>/weights"),
    ],
)
def test_a_path_that_cannot_be_loaded_fails_the_future(api, path, text):
    """The operation keeps its number."""
    model = api.new_model()
    failure = api.run("load_weights", {"model_id": model, "seq_id": 1, "path": path, "optimizer": False})
    assert text in failure["error"]
    assert failure["category"] == "user"
    api.run("optim_step", api.optim_step(model, 2))


def test_a_name_that_is_taken_fails_the_future(api):
    """It is no 409, which clients would repeat for minutes; a repeat of the same save is no clash."""
    model = api.new_model()
    body = {"model_id": model, "path": "x", "seq_id": 1}
    first = api.post("save_weights", body)
    assert api.post("save_weights", body) == first
    api.run("optim_step", api.optim_step(model, 2))
    clash = api.run("save_weights", body | {"seq_id": 3})
    assert clash["category"] == "user"
    assert "overwrite=True" in clash["error"]
    assert "path" in api.run("save_weights", body | {"seq_id": 4, "overwrite": True, "user_metadata": {"a": "b"}})
    (listed,) = api.get(f"training_runs/{model}/checkpoints")["checkpoints"]
    assert listed["user_metadata"] == {"a": "b"}
    load = {"model_id": model, "seq_id": 5, "path": f"tinker://{model}/weights/x", "optimizer": True}
    assert "path" in api.run("load_weights", load)


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "", "a" * 129, "x\u00e4", "..", "a\x00", "a\n"])
def test_names_that_are_no_names(api, name):
    """Nothing outside the folder of the run can be named."""
    failure = api.run("save_weights", {"model_id": api.new_model(), "path": name, "seq_id": 1})
    assert "not allowed" in failure["error"]
    assert failure["category"] == "user"


def test_a_save_without_a_name_gets_one(api):
    """The name is optional on the wire."""
    model = api.new_model()
    assert save(api, model, 1, None).startswith(f"tinker://{model}/weights/checkpoint-")


def test_a_failed_save_leaves_nothing(api, engine):
    """Neither a checkpoint nor a name that is taken."""
    model = api.new_model()
    engine.fail("save", OSError("disk full"))
    assert "disk full" in api.run("save_weights", {"model_id": model, "path": "x", "seq_id": 1})["error"]
    assert api.get(f"training_runs/{model}/checkpoints")["checkpoints"] == []
    assert save(api, model, 2, "x")


def test_checkpoints_are_listed_newest_first_in_pages(serve):
    """With everything that was given at the save."""
    api = serve()
    model = api.new_model()
    save(api, model, 1, "a", user_metadata={"note": "first"}, ttl_seconds=3600)
    save(api, model, 2, "b")
    path = api.run("save_weights_for_sampler", {"model_id": model, "path": "c", "seq_id": 3})["path"]
    everything = api.get("checkpoints")
    assert [item["checkpoint_id"] for item in everything["checkpoints"]] == [
        "sampler_weights/c",
        "weights/b",
        "weights/a",
    ]
    assert [item["checkpoint_type"] for item in everything["checkpoints"]] == ["sampler", "training", "training"]
    assert everything["cursor"] == {"offset": 0, "limit": 100, "total_count": 3}
    assert everything["checkpoints"][0]["tinker_path"] == path
    oldest = everything["checkpoints"][2]
    assert oldest["user_metadata"] == {"note": "first"}
    assert oldest["size_bytes"] > 0
    age = datetime.fromisoformat(oldest["expires_at"].replace("Z", "+00:00")) - datetime.fromisoformat(
        oldest["time"].replace("Z", "+00:00")
    )
    assert age == timedelta(hours=1)
    page = api.get("checkpoints?limit=1&offset=1")
    assert [item["checkpoint_id"] for item in page["checkpoints"]] == ["weights/b"]
    assert page["cursor"] == {"offset": 1, "limit": 1, "total_count": 3}
    assert "cursor" not in api.get(f"training_runs/{model}/checkpoints")


def test_training_runs(serve):
    """Live ones with and without checkpoints, the last used first."""
    api = serve()
    session = api.session()
    body = {"session_id": session, "model_seq_id": 0, "base_model": "tinkex/tiny-0.9m"}
    run = api.run("create_model", body | {"user_metadata": {"lr": 0.1}, "lora_config": {"rank": 4}})["model_id"]
    other = api.model(session, 1)
    path = save(api, run, 1, "a")
    runs = api.get("training_runs")
    assert [item["training_run_id"] for item in runs["training_runs"]] == [run, other]
    assert runs["cursor"] == {"offset": 0, "limit": 20, "total_count": 2}
    found = api.get(f"training_runs/{run}")
    assert found == runs["training_runs"][0]
    assert (found["base_model"], found["is_lora"], found["lora_rank"]) == ("tinkex/tiny-0.9m", True, 4)
    assert found["user_metadata"] == {"lr": "0.1"}
    assert found["last_checkpoint"]["tinker_path"] == path
    assert found.get("last_sampler_checkpoint") is None
    assert "unknown" in api.get("training_runs/nope", status=404)["detail"]
    api.get("training_runs/nope/checkpoints", status=404)


def test_a_restart_keeps_checkpoints_and_their_runs(serve):
    """A path that one process printed can be loaded by the next; live things are gone and say so."""
    api = serve(engine=ScriptedEngine())
    session = api.session()
    model = api.model(session, rank=4)
    api.run("optim_step", api.optim_step(model, 1))
    trained = loss(api, model, 2)
    path = save(api, model, 3, "kept")
    sampler_path = api.run("save_weights_for_sampler", {"model_id": model, "path": "s", "seq_id": 4})["path"]
    before = api.get(f"training_runs/{model}/checkpoints")
    api.server.stop()

    api = serve(engine=ScriptedEngine())
    assert api.get(f"training_runs/{model}/checkpoints") == before
    assert api.get(f"training_runs/{model}")["lora_rank"] == 4
    assert api.post("weights_info", {"tinker_path": path})["lora_rank"] == 4
    session = api.session()
    assert "sequences" in api.run("asample", api.sample(api.sampler(session, sampler_path), 0))
    load = {"session_id": session, "model_seq_id": 0, "path": path, "optimizer": True}
    again = api.run("load_weights", load)["model_id"]
    assert loss(api, again, 1) == trained
    assert "server stops" in api.post("optim_step", api.optim_step(model, 5), status=404)["detail"]


def test_two_servers_may_share_a_folder(serve):
    """What one saves or deletes, the other sees."""
    one, two = serve(engine=ScriptedEngine()), serve(engine=ScriptedEngine())
    model = one.new_model()
    path = save(one, model, 1, "x")
    assert [item["tinker_path"] for item in two.get("checkpoints")["checkpoints"]] == [path]
    assert two.call("DELETE", f"training_runs/{model}/checkpoints/weights/x").status_code == 204
    assert one.get("checkpoints")["checkpoints"] == []


def test_weights_info(api):
    """What older clients need to make a model for a checkpoint; either kind of path."""
    lora = {"rank": 4, "train_mlp": False}
    body = {"session_id": api.session(), "model_seq_id": 0, "base_model": "tinkex/tiny-0.9m", "lora_config": lora}
    path = save(api, api.run("create_model", body)["model_id"], 1, "x")
    info = api.post("weights_info", {"tinker_path": path})
    assert info == {
        "base_model": "tinkex/tiny-0.9m",
        "is_lora": True,
        "lora_rank": 4,
        "train_unembed": True,
        "train_mlp": False,
        "train_attn": True,
        "optimizer_config": {"type": "adamw"},
    }
    api.post("weights_info", {"tinker_path": path + "x"}, status=404)
    assert "tinker_path" in api.post("weights_info", {"tinker_path": "x"}, status=400)["detail"]


@pytest.mark.parametrize("form", ["weights/x", "weights%2Fx"])
def test_a_checkpoint_is_deleted(api, form):
    """204, then 404; the slash of the id may be escaped."""
    model = api.new_model()
    save(api, model, 1, "x")
    assert api.call("DELETE", f"training_runs/{model}/checkpoints/{form}").status_code == 204
    answer = api.call("DELETE", f"training_runs/{model}/checkpoints/{form}")
    assert answer.status_code == 404
    assert "deleted" in answer.json()["detail"]
    assert save(api, model, 2, "x")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("x", 400),
        ("other/x", 400),
        ("external_weights/none", 404),
        ("weights/none", 404),
        ("weights/..%2f..", 404),
        ("weights/%2e%2e", 404),
        ("..%2f..%2fsecrets/x", 404),
        ("weights/x%00", 404),
    ],
)
def test_ids_that_name_no_checkpoint(api, path, status):
    """A bare name lacks its kind; nothing leads out of the folder."""
    answer = api.call("DELETE", f"training_runs/{api.new_model()}/checkpoints/{path}")
    assert answer.status_code == status
    assert answer.json()["detail"]


@pytest.mark.parametrize(
    ("method", "end"),
    [("GET", "/archive"), ("POST", "/publish"), ("PUT", "/ttl"), ("GET", "/external_weights_urls"), ("DELETE", "")],
)
def test_a_bare_name_lacks_its_kind_in_every_request(api, method, end):
    """Each says so."""
    answer = api.call(method, f"training_runs/{api.new_model()}/checkpoints/x{end}")
    assert (answer.status_code, "lacks its kind" in answer.json()["detail"]) == (400, True)


@pytest.mark.parametrize("name", ["archive", "publish", "ttl"])
def test_a_checkpoint_may_be_called_like_the_end_of_a_request(api, name):
    """Its whole id is no bare name."""
    model = api.new_model()
    save(api, model, 1, name)
    path = f"training_runs/{model}/checkpoints/weights/{name}"
    assert api.call("POST", f"{path}/publish").status_code == 204
    assert api.call("DELETE", path).status_code == 204


@pytest.mark.parametrize("run", ["%2e%2e", "..%2f..", "*", "a_train_0", "x:train:0/../y:train:0"])
def test_run_ids_that_name_no_run(api, run):
    """Neither patterns nor paths are taken for ids."""
    api.new_model()
    assert api.call("GET", f"training_runs/{run}/checkpoints").status_code == 404


def test_publishing_is_a_mark(api):
    """Both ways answer 204, and 409 that need not be repeated if nothing changes."""
    model = api.new_model()
    save(api, model, 1, "x")
    url = f"training_runs/{model}/checkpoints/weights/x/publish"
    for method, public in (("POST", True), ("DELETE", False)):
        assert api.call(method, url).status_code == 204
        assert api.get(f"training_runs/{model}/checkpoints")["checkpoints"][0]["public"] is public
        again = api.call(method, url)
        assert (again.status_code, again.headers["x-should-retry"]) == (409, "false")
    assert api.call("POST", url.replace("weights/x", "weights/y")).status_code == 404


def test_time_to_live(serve, tmp_path):
    """It can be set and removed; when it is over the checkpoint is gone, from the disk too."""
    api = serve()
    now = datetime(2030, 1, 1, tzinfo=timezone.utc)
    service = api.server._parts().service
    service.checkpoints._now = lambda: now
    model = api.new_model()
    for seq, name in enumerate(("short", "kept"), 1):
        save(api, model, seq, name)
    url = f"training_runs/{model}/checkpoints/weights/%s/ttl"
    for name in ("short", "kept"):
        assert api.call("PUT", url % name, {"ttl_seconds": 3600}).status_code == 204
    assert api.call("PUT", url % "kept", {"ttl_seconds": None}).status_code == 204
    for wrong in (3599, 10**12, "x", True, 3600.5):
        answer = api.call("PUT", url % "kept", {"ttl_seconds": wrong})
        assert answer.status_code == 400
        assert "3600" in answer.json()["detail"]
    assert api.call("PUT", url % "kept", {"other": 1}).status_code == 422
    expires = {item["checkpoint_id"]: item.get("expires_at") for item in api.get("checkpoints")["checkpoints"]}
    assert expires == {"weights/short": "2030-01-01T01:00:00Z", "weights/kept": None}
    now += timedelta(hours=1)
    assert [item["checkpoint_id"] for item in api.get("checkpoints")["checkpoints"]] == ["weights/kept"]
    assert not list(tmp_path.glob("checkpoints/*/weights/short"))


def test_an_archive_is_fetched_from_a_link(api):
    """302 to a link that needs no key and works once; its content is that of the service, and repeatable."""
    model = api.new_model()
    save(api, model, 1, "x")
    url = f"training_runs/{model}/checkpoints/weights/x/archive"
    contents = []
    for _ in range(2):
        answer = api.call("GET", url, headers={"Accept": "application/gzip"})
        assert answer.status_code == 302
        left = parsedate_to_datetime(answer.headers["Expires"]) - datetime.now(timezone.utc)
        assert timedelta(minutes=14) < left <= timedelta(minutes=15)
        link = answer.headers["Location"]
        assert link.startswith(api.server.base_url)
        contents.append(requests.get(link, timeout=10).content)
    assert contents[0] == contents[1]
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(contents[0]))) as archive:
        assert archive.getnames() == ["adapter_config.json", "adapter_model.safetensors", "checkpoint_complete"]
        assert json.load(archive.extractfile("adapter_config.json"))["rank"] == 8
        assert archive.getmember("checkpoint_complete").size == 0
    again = requests.get(link, timeout=10)
    assert again.status_code == 404
    assert "ask for the archive again" in again.json()["detail"]


def test_a_link_to_a_deleted_checkpoint(api):
    """404 says what happened."""
    model = api.new_model()
    save(api, model, 1, "x")
    link = api.call("GET", f"training_runs/{model}/checkpoints/weights/x/archive").headers["Location"]
    api.call("DELETE", f"training_runs/{model}/checkpoints/weights/x")
    assert "deleted" in requests.get(link, timeout=10).json()["detail"]


def external(api, model, seq, name="e", **more):
    """Save an external checkpoint and return where its files are."""
    saved = api.run("save_weights_external", {"model_id": model, "path": name, "seq_id": seq, **more})
    assert saved["path"] == f"tinker://{model}/external_weights/{name}"
    return api.get(f"training_runs/{model}/checkpoints/external_weights/{name}/external_weights_urls")


def test_external_weights_are_fetched_file_by_file(api):
    """Each file has a link of its own, which needs no key and works once."""
    model = api.new_model()
    links = external(api, model, 1)
    left = datetime.fromisoformat(links["expires"].replace("Z", "+00:00")) - datetime.now(timezone.utc)
    assert timedelta(minutes=14) < left <= timedelta(minutes=15)
    assert set(links["urls"]) == {"adapter_config.json", "adapter_model.safetensors"}
    answer = requests.get(links["urls"]["adapter_config.json"], timeout=10)
    assert json.loads(answer.content)["rank"] == 8
    assert (answer.status_code, "Content-Range" in answer.headers) == (200, False)
    assert int(answer.headers["Content-Length"]) == len(answer.content)
    again = requests.get(links["urls"]["adapter_config.json"], timeout=10)
    assert (again.status_code, "new links" in again.json()["detail"]) == (404, True)
    assert requests.get(links["urls"]["adapter_model.safetensors"], timeout=10).ok


def test_a_broken_download_of_a_file_goes_on_where_it_ended(api):
    """A link lives until its last byte was sent; parts of the file are sent as they are asked for."""
    link = external(api, api.new_model(), 1)["urls"]["adapter_config.json"]

    def part(asked):
        return requests.get(link, headers={"Range": asked}, timeout=10)

    first = part("bytes=0-3")
    size = int(first.headers["Content-Range"].rpartition("/")[2])
    assert (first.status_code, first.headers["Content-Range"]) == (206, f"bytes 0-3/{size}")
    beyond = part(f"bytes={size}-")
    assert (beyond.status_code, beyond.headers["Content-Range"]) == (416, f"bytes */{size}")
    rest = part("bytes=4-")
    assert (rest.status_code, rest.headers["Content-Length"]) == (206, str(size - 4))
    assert json.loads(first.content + rest.content)["rank"] == 8
    assert part("bytes=0-").status_code == 404


def test_a_range_that_is_no_range_is_not_looked_at(api):
    """The whole file is the right answer to nonsense."""
    link = external(api, api.new_model(), 1)["urls"]["adapter_config.json"]
    answer = requests.get(link, headers={"Range": "pages=1-2"}, timeout=10)
    assert (answer.status_code, json.loads(answer.content)["rank"]) == (200, 8)


def test_external_weights_cannot_be_what_they_are_not(api):
    """Nothing is trained or sampled from them, nothing encrypts here, and only they have links for each file."""
    session = api.session()
    model = api.model(session)
    body = {"model_id": model, "path": "e", "seq_id": 1, "age_encryption_recipients": ["age1x"]}
    failure = api.run("save_weights_external", body)
    assert ("does not encrypt" in failure["error"], failure["category"]) == (True, "user")
    path = api.run("save_weights_external", {"model_id": model, "path": "e", "seq_id": 2})["path"]
    load = {"model_id": model, "seq_id": 3, "path": path, "optimizer": False}
    assert "external checkpoint" in api.run("load_weights", load)["error"]
    save(api, model, 4, "w")
    url = f"training_runs/{model}/checkpoints/weights/w/external_weights_urls"
    assert "save_weights_external" in api.get(url, status=400)["detail"]


def test_old_clients_see_no_external_checkpoints(api):
    """SDKs before 0.26 fail on a list that has a kind they do not know."""
    model = api.new_model()
    external(api, model, 1)
    save(api, model, 2, "w")

    def listed(agent):
        paths = (f"training_runs/{model}/checkpoints", "checkpoints?limit=1000")
        answers = [api.call("GET", path, headers={"User-Agent": agent}).json()["checkpoints"] for path in paths]
        return [{item["checkpoint_type"] for item in items if model in item["tinker_path"]} for items in answers]

    assert listed("AsyncTinker/Python 0.25.0") == [{"training"}] * 2
    assert listed("AsyncTinker/Python 0.38.0") == [{"training", "external"}] * 2
    assert listed("somebody else") == [{"training", "external"}] * 2


def test_a_copy_is_a_checkpoint_of_its_own(api, engine):
    """It outlives its source, is of the same kind, and belongs to a run that cannot be trained."""
    session = api.session()
    model = api.model(session, rank=4)
    api.run("optim_step", api.optim_step(model, 1))
    trained = loss(api, model, 2)
    path = save(api, model, 3, "a", user_metadata={"note": "x"})
    body = {"source_path": path, "session_id": session, "model_seq_id": 1, "ttl_seconds": 3600}
    copy = api.post("copy_weights", body)["tinker_path"]
    assert copy == f"tinker://{session}:train:1/weights/a"
    (listed,) = api.get(f"training_runs/{session}:train:1/checkpoints")["checkpoints"]
    assert (listed["user_metadata"], listed["public"]) == ({"note": "x"}, False)
    assert listed["expires_at"] is not None
    assert api.call("DELETE", f"training_runs/{model}/checkpoints/weights/a").status_code == 204
    again = api.run("load_weights", {"session_id": session, "model_seq_id": 2, "path": copy, "optimizer": True})[
        "model_id"
    ]
    assert loss(api, again, 1) == trained
    refused = api.post("optim_step", api.optim_step(f"{session}:train:1", 1), status=404)
    assert "holds a copy" in refused["detail"]
    clash = {"session_id": session, "model_seq_id": 1, "base_model": "tinkex/tiny-0.9m"}
    assert "copy_weights" in api.post("create_model", clash, status=400)["detail"]
    assert "already used" in api.post("copy_weights", {**body, "source_path": copy}, status=400)["detail"]


def test_a_repeated_copy_is_one_copy(api):
    """The idempotency key tells a repeat; a copy for a project gets a run that belongs to no session."""
    path = save(api, api.new_model(), 1, "a")
    body = {"source_path": path, "destination_project_id": "p"}
    first, same, other = (
        api.post("copy_weights", body, headers={"X-Idempotency-Key": key})["tinker_path"] for key in ("1", "1", "2")
    )
    assert first == same != other
    assert api.get(f"training_runs/{first.split('/')[2]}")["last_checkpoint"]["tinker_path"] == first


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({"source_path": "x", "destination_project_id": "p"}, 400, "source_path"),
        ({"source_path": "tinker://s:train:0/weights/no", "destination_project_id": "p"}, 404, "deleted"),
        ({"source_path": "tinker://s:train:0/weights/no"}, 422, "destination_project_id"),
    ],
)
def test_copies_that_cannot_be_made(api, body, status, text):
    """The answer names what is wrong."""
    assert text in api.post("copy_weights", body, status=status)["detail"]


def test_a_model_is_not_made_of_a_checkpoint_that_is_not_there(api):
    """That is told at once, and the number can be used again."""
    session = api.session()
    body = {"session_id": session, "model_seq_id": 0, "optimizer": False}
    for path, status in (("tinker://s:train:0/weights/none", 404), ("tinker://s:train:0/sampler_weights/x", 400)):
        api.post("load_weights", {**body, "path": path}, status=status)
    assert api.model(session, 0)


def test_links_end(serve):
    """After their time they are unknown."""
    api = serve(Limits(archive_s=0))
    model = api.new_model()
    save(api, model, 1, "x")
    link = api.call("GET", f"training_runs/{model}/checkpoints/weights/x/archive").headers["Location"]
    assert requests.get(link, timeout=10).status_code == 404


def test_the_disk_is_not_filled(serve):
    """When the checkpoints take too much room, a save says so and names the way out."""
    api = serve(Limits(checkpoint_bytes=1))
    model = api.new_model()
    save(api, model, 1, "x")
    failure = api.run("save_weights", {"model_id": model, "path": "y", "seq_id": 2})
    assert "delete some" in failure["error"]
    assert failure["category"] == "server"
