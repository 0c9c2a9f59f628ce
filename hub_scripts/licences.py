"""Lists the licence of every package that this one needs, as installed here.

python hub_scripts/licences.py

Reads the metadata of the installed packages; those that only development needs are marked. `make licences` runs it.
"""

from importlib import metadata

from packaging.requirements import Requirement


def licence_of(package: metadata.Distribution) -> str:
    """The licence that a package names: SPDX expression, else classifiers, else the first line of the old field."""
    about = package.metadata
    named = [line.rpartition(" :: ")[2] for line in about.get_all("Classifier") or () if line.startswith("License ::")]
    old = (about.get("License") or "").strip().partition("\n")[0][:60]
    return about.get("License-Expression") or ", ".join(named) or old or "not named"


def needed(name: str, extras: tuple[str, ...] = ()) -> dict[str, metadata.Distribution]:
    """The installed packages that a package needs, directly or through others, by name."""
    found: dict[str, metadata.Distribution] = {}
    waiting = [(name, extras)]
    while waiting:
        name, extras = waiting.pop()
        for text in metadata.distribution(name).requires or ():
            wanted = Requirement(text)
            marker = wanted.marker
            if marker and not any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
                continue
            try:
                package = metadata.distribution(wanted.name)
            except metadata.PackageNotFoundError:  # an extra that is not installed
                continue
            key = package.metadata["Name"].lower()
            if key not in found:
                found[key] = package
                waiting.append((wanted.name, tuple(wanted.extras)))
    return found


def main() -> None:
    extras = ("all", "peft", "onnx", "minilm", "space")
    used, packages = needed("ecgdan-hf", extras), needed("ecgdan-hf", (*extras, "dev"))
    for name in sorted(set(packages) - {"ecgdan-hf"}):
        mark = "" if name in used else " (development only)"
        print(f"{name} {packages[name].version}: {licence_of(packages[name])}{mark}")


if __name__ == "__main__":
    main()
