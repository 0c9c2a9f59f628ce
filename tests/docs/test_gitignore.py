"""Git ignores what the commands of README and docs read or write in a clone: it may be patients' data."""

import re
import subprocess

import pytest
from docs.test_code_blocks import DOCUMENTS, blocks_of
from fixtures.write_clone import REPOSITORY

PATH = r"([\w./-]+)"
WRITTEN = re.compile(rf"--(?:out|output-dir|html|data-dir|labels|fields|withdrawn) {PATH}")
READ = re.compile(rf"ecgdan (?:predict|explain|data check|data ukb-cohort) {PATH}")
BUNDLED = re.compile(rf"ecgdan (?:bundle|export|data convert) {PATH} {PATH}")

pytestmark = pytest.mark.skipif(not (REPOSITORY / ".git").exists(), reason="needs a clone")


def git(*arguments: str) -> list[str]:
    done = subprocess.run(["git", "-C", str(REPOSITORY), *arguments], capture_output=True, encoding="utf-8")
    assert done.returncode in (0, 1), done.stderr
    return done.stdout.splitlines()


def test_every_folder_and_file_that_the_documents_name_is_ignored() -> None:
    blocks = [block for document in DOCUMENTS for block in blocks_of(document)]
    code = "\n".join(block.code for block in blocks if block.language == "bash" and block.reason is None)
    paths = {*WRITTEN.findall(code), *READ.findall(code), *(pair[1] for pair in BUNDLED.findall(code))}
    assert {"my-ecgs", "ptb-xl", "predictions.csv", "outcomes.csv", "runs/mine", "bundles/mine"} <= paths
    assert sorted(paths - set(git("check-ignore", *sorted(paths)))) == []


def test_no_file_of_the_repository_is_ignored() -> None:
    assert git("ls-files", "--cached", "--ignored", "--exclude-standard") == []
