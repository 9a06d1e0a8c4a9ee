"""Checkpoints on the disk: complete, safe, and what other programs read."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest
import requests

import tinkex
from tinkex import types
from tinkex.clients.unpack import safe_name, unpack

WAIT = 60.0


def tar_of(path: Path, *members: tuple[str, bytes | None, bytes], mode: str = "w:gz") -> Path:
    """Write an archive of (name, type, content); type None is a plain file."""
    with tarfile.open(path, mode) as tar:
        for name, kind, content in members:
            info = tarfile.TarInfo(name)
            info.type = kind or tarfile.REGTYPE
            info.linkname, info.size = ("target" if kind else ""), len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def names(folder: Path) -> list[str]:
    """Everything below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("kind", ["weights", "sampler_weights"])
def test_a_checkpoint_becomes_a_folder(stage, tmp_path, kind):
    """Its files are those of the archive, and nothing of the download is left beside them."""
    train = stage.train()
    save = train.save_state if kind == "weights" else train.save_weights_for_sampler
    path = save("one").result(WAIT).path
    seen: list[tuple[int, int | None]] = []
    rest = stage.service.create_rest_client()
    folder = rest.download_checkpoint(
        path, tmp_path / "got" / "one", progress=lambda done, whole: seen.append((done, whole))
    )
    assert tmp_path / "got" / "one" == folder
    assert {"adapter_config.json", "adapter_model.safetensors"} <= set(names(folder))
    assert "acme/small" == json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert seen[-1][0] == seen[-1][1] > 0
    assert ["one"] == [item.name for item in folder.parent.iterdir()]


def test_the_embedded_server_sends_the_rest_of_an_archive(stage):
    """From the byte asked for, if the archive is still the same one; with its digest, and under any of its links."""
    path = stage.train().save_weights_for_sampler("one").result(WAIT).path
    rest = stage.service.create_rest_client()

    def get(**headers: str) -> requests.Response:
        link = rest.get_checkpoint_archive_url_from_tinker_path(path).result(WAIT).url
        return requests.get(
            link, headers={name.replace("_", "-"): text for name, text in headers.items()}, timeout=WAIT
        )

    whole = get()
    digest = base64.b64encode(hashlib.sha256(whole.content).digest()).decode()
    assert f"sha-256=:{digest}:" == whole.headers["repr-digest"]
    part = get(Range="bytes=100-", If_Range=whole.headers["etag"])
    assert (206, whole.content[100:]) == (part.status_code, part.content)
    other = get(Range="bytes=100-", If_Range='"of another"')
    assert (200, whole.content) == (other.status_code, other.content)


def test_external_weights_come_file_by_file(stage, tmp_path):
    """Each file has a link of its own."""
    session = stage.service._session
    train = stage.train()
    request = types.SaveWeightsExternalRequest(model_id=train.model_id, path="out", seq_id=1)
    promise = session.api.weights.save_external(request)
    wait = types.FutureRetrieveRequest(request_id=promise.request_id)
    saved = session.api.futures.retrieve(wait, types.SaveWeightsExternalResponse)
    seen: list[int] = []
    folder = stage.service.create_rest_client().download_checkpoint(
        saved.path, tmp_path / "got", progress=lambda done, _: seen.append(done)
    )
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    assert len(sizes) > 1
    assert sum(sizes) == seen[-1]
    assert sorted(seen) == seen


def test_a_folder_with_files_is_not_touched_unless_told(stage, tmp_path):
    """With overwrite it is replaced as a whole, once the download is complete."""
    path = stage.train().save_weights_for_sampler("one").result(WAIT).path
    rest = stage.service.create_rest_client()
    (tmp_path / "got").mkdir()
    (tmp_path / "got" / "mine.txt").write_text("mine")
    with pytest.raises(tinkex.InvalidInputError, match="not empty"):
        rest.download_checkpoint(path, tmp_path / "got")
    with pytest.raises(tinkex.NotFoundError):
        rest.download_checkpoint(path + "x", tmp_path / "got", overwrite=True)
    assert ["mine.txt"] == names(tmp_path / "got")
    assert "mine.txt" not in names(rest.download_checkpoint(path, tmp_path / "got", overwrite=True))


def test_what_is_no_checkpoint_is_refused_before_anything_is_written(stage, tmp_path):
    """The error shows what a path looks like."""
    with pytest.raises(tinkex.InvalidInputError, match="tinker://<run>"):
        stage.service.create_rest_client().download_checkpoint("weights/one", tmp_path / "new" / "got")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "name", ["../evil", "/evil", "a/../../evil", "a/..", "", "..", "C:\\evil", "a\\b", "a:b", "a//b", "a\nb", "a\x00b"]
)
def test_a_name_that_leads_out_is_refused(name):
    """Whatever system the name would mean something on."""
    with pytest.raises(tinkex.APIResponseValidationError, match="out of the folder"):
        safe_name(name)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path, kind):
    """An archive of weights has no use for them."""
    archive = tar_of(tmp_path / "archive", ("fine", None, b"1"), ("odd", kind, b""))
    (tmp_path / "out").mkdir()
    with pytest.raises(tinkex.APIResponseValidationError, match="neither file nor folder"):
        unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out" / "odd").exists()


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_files_and_folders_are_unpacked_and_nothing_else_is_taken_over(tmp_path, mode):
    """Names below folders work, with and without a leading dot."""
    members = [("./a", None, b"1"), ("b/", tarfile.DIRTYPE, b""), ("b/c", None, b"22"), ("d/e/f", None, b"")]
    (tmp_path / "out").mkdir()
    unpack(tar_of(tmp_path / "archive", *members, mode=mode), tmp_path / "out")
    assert ["a", "b/c", "d/e/f"] == names(tmp_path / "out")
    assert b"22" == (tmp_path / "out" / "b" / "c").read_bytes()


def test_a_bomb_a_repeat_and_a_broken_archive_are_refused(tmp_path):
    """Far more than was packed, a name that comes twice, or no archive at all."""
    bomb = tar_of(tmp_path / "bomb", ("zeros", None, bytes(64 << 20)))
    twice = tar_of(tmp_path / "twice", ("a", None, b"1"), ("a", None, b"2"))
    broken = tmp_path / "broken"
    broken.write_bytes(twice.read_bytes()[:40])
    for archive, message in ((bomb, "far more"), (twice, "exists"), (broken, "cannot be unpacked")):
        out = tmp_path / f"{archive.name}-out"
        out.mkdir()
        with pytest.raises(tinkex.APIResponseValidationError, match=message):
            unpack(archive, out)


@pytest.mark.engine
@pytest.mark.filterwarnings("ignore::FutureWarning")  # of peft, about transformers
def test_peft_loads_what_was_downloaded(tmp_path):
    """On the base model, the downloaded adapter gives the logprobs that the sampler gives."""
    torch = pytest.importorskip("torch")
    peft = pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    from tinkex.data import TINY_NAME, TINY_PATH, builtin_models
    from tinkex.local import LocalServer
    from tinkex.local.engine.torch_hf import TorchEngine

    tokens = [256, 104, 105, 32, 116, 104]
    datum = types.Datum(
        model_input=types.ModelInput.from_ints(tokens[:-1]), loss_fn_inputs={"target_tokens": tokens[1:]}
    )
    engine = TorchEngine(builtin_models(), threads=1, device="cpu")
    with LocalServer(engine, data_dir=tmp_path / "data") as server:
        settings = {"base_url": server.base_url, "api_key": server.api_key, "telemetry": False}
        with tinkex.ServiceClient(**settings) as service:
            train = service.create_lora_training_client(TINY_NAME, rank=4, seed=1)
            for _ in range(2):
                train.forward_backward([datum], "cross_entropy")
                train.optim_step(types.AdamParams(learning_rate=1e-2))
            path = train.save_weights_for_sampler("one").result(WAIT).path
            sampler = service.create_sampling_client(model_path=path)
            expected = sampler.compute_logprobs(types.ModelInput.from_ints(tokens)).result(WAIT)[1:]
            folder = service.create_rest_client().download_checkpoint(path, tmp_path / "adapter")
    base = transformers.AutoModelForCausalLM.from_pretrained(TINY_PATH, dtype=torch.float32)
    bare = score(torch, base, tokens)
    loaded = score(torch, peft.PeftModel.from_pretrained(base, folder).eval(), tokens)
    assert loaded == pytest.approx(expected, abs=1e-4)
    assert bare != pytest.approx(expected, abs=1e-2)


def score(torch, model, tokens: list[int]) -> list[float]:
    """The logprob of each token but the first."""
    with torch.inference_mode():
        logprobs = torch.log_softmax(model(torch.tensor([tokens])).logits[0, :-1].float(), -1)
    return logprobs.gather(-1, torch.tensor(tokens[1:]).unsqueeze(1))[:, 0].tolist()
