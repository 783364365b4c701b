"""Every code block of README.md and docs/ is right, and runs where it can; and the checker finds what is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from tests.unit import documentation as docs
from tests.unit import documentation_shell as shell

pytestmark = pytest.mark.slow

BLOCKS = docs.every()
RUN = sorted({block.page for block in BLOCKS if block.language in ("python", "sh", "console") and not (block.skipped or block.slow)})
PAGES = [str(page.relative_to(docs.ROOT)) for page in docs.pages()]


def run(page: str, folder: Path, *, slow: bool) -> None:
    """Runs the steps of a page in `folder`."""
    steps = docs.steps(page, slow=slow)
    (folder / "work").mkdir()
    (folder / "steps.json").write_text(json.dumps(steps))
    environment = {**os.environ, "PYTHONPATH": f"{docs.ROOT / 'src'}{os.pathsep}{docs.ROOT}", "PYTHONSAFEPATH": "1", "CAUSALROUTE_CACHE": str(folder / "cache")}
    command = [sys.executable, "-m", "tests.unit.documentation_run", str(folder / "steps.json"), page]
    limit = 1500 if slow else 120
    done = subprocess.run(command, cwd=folder / "work", env=environment, capture_output=True, text=True, check=False, timeout=limit)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.name)
def test_a_block_is_right(block: docs.Block) -> None:
    assert docs.problems(block) == [], f"{block.name}\n{block.text}"


@pytest.mark.parametrize("page", RUN)
def test_the_blocks_of_a_page_run(page: str, tmp_path: Path) -> None:
    run(page, tmp_path, slow=False)


@pytest.mark.parametrize("page", PAGES)
def test_code_has_a_fence_and_a_language(page: str) -> None:
    assert docs.indented(page, (docs.ROOT / page).read_text(encoding="utf-8")) == []


def test_most_blocks_are_run_or_checked_in_full_and_the_others_say_why() -> None:
    reasons = Counter(block.skipped for block in BLOCKS if "not run" in block.told)
    print("\n".join(f"{count} not run: {reason}" for reason, count in reasons.most_common()))
    assert "" not in reasons
    assert reasons.total() < len(BLOCKS) / 2, reasons


def found(language: str, text: str, **told: str) -> list[str]:
    return docs.problems(docs.Block("page.md", 1, language, text, {key.replace("_", " "): value for key, value in told.items()}))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("causalroute audit posts.csv --fail-onn leaks=0", "unrecognized arguments: --fail-onn"),
        ("causalroute audit posts.csv --fail leaks=0", "unrecognized arguments: --fail"),  # an abbreviation
        ("causalroute audit posts.csv --control bonferroni", "invalid choice: 'bonferroni'"),
        ("causalroute audt posts.csv", "invalid choice: 'audt'"),
        ("causalroute doctor --deep --offline", "unrecognized arguments: --offline"),
        ("make reproduc", "no target 'reproduc'"),
        ("make sweep OFF=rank", "no variable 'OFF'"),
        ("make lint && make tset", "no target 'tset'"),
        ("snakemake --cores all --forcerunn fetch", "unrecognized arguments"),
        ("snakemake --cores all --forcerun fetsh", "no rule 'fetsh'"),
        ("snakemake --cores all ablatio", "no rule 'ablatio'"),
        ("snakemake --profile profiles/locl", "no profile"),
        ("dvc exp run -S train.lrr=0.003", "did you mean 'lr'"),
        ("dvc exp run --queue -S '++methods.causal_moe.ranks=4,8'", "did you mean 'rank'"),
        ("dvc exp run --temporary", "dvc does not take"),
        ("dvc pul", "dvc does not take"),
        ("python -m causalroute.features.verify --repare", "unrecognized arguments: --repare"),
        ("python -m causalroute.features.verfy", "there is no causalroute.features.verfy"),
        ("python -m causalroute.stages.gate --dataset planted", "required: --"),
        ("PYTHONPATH=src python -m benchmarks.noisy --rate 2", "unrecognized arguments: --rate 2"),
        ("python -m causalroute.schema --check", "takes no arguments"),
        ("python scripts/sweep.py rank --data planted", "unrecognized arguments: --data"),
        ("python scripts/swep.py", "there is no scripts/swep.py"),
        ("sh scripts/stal.sh", "there is no scripts/stal.sh"),
        ("pip install 'causalroute[mlm]'", "no extra 'mlm'"),
        ("causalrout audit posts.csv", "unknown program 'causalrout'"),
    ],
)
def test_a_misspelt_command_is_found(line: str, words: str) -> None:
    assert words in " ".join(found("sh", line + "\n"))
    assert words in " ".join(found("console", f"made up output --with flags\n$ {line}\n"))


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("train: {epoch: 3}", "", "did you mean 'epochs'"),
        ("my_posts: {formt: table}", "datasets", "did you mean 'format'"),
        ("inject: {marks: corner}", "datasets.mvsa", "did you mean 'mark'"),
        ("methods: {causal_moe: {top: 1}}", "", "did you mean 'top_k'"),
        ("train: {lr: 1e-3}", "", "write 0.001"),
        ("run: [planted", "", "expected"),
        ("planted", "", "no mapping"),
    ],
)
def test_a_misspelt_key_is_found(text: str, place: str, words: str) -> None:
    assert words in " ".join(found("yaml", text, **{"in": place}))


def test_other_faults_are_found() -> None:
    assert "language ''" in found("", "x")[0]
    assert "language 'bash'" in found("bash", "x")[0]
    assert "invalid syntax" in found("python", "import = 3")[0]
    assert "say why" in found("sh", "make test", not_run="")[0]
    assert "unrecognized" in found("sh", "causalroute audit x.csv --nonsense", not_run="takes too long")[0]
    assert docs.indented("p", "text\n\n    make test\n") == ["p:3"]
    assert docs.indented("p", "- item\n    goes on\n\n```sh\n\n    make test\n```\n") == []
    with pytest.raises(ValueError, match=r"p:1: .* not closed"):
        list(docs.blocks("p", "```sh\nmake test\n"))


def test_how_blocks_are_read() -> None:
    text = "<!-- slow -->\n<!-- in: a.b -->\n\n```yaml\nx: 1\n```\n<!-- not run: no GPU here -->\nwords\n~~~~python\n```\n~~~~\n"
    text += "- list\n\n  ```sh\n  make \\\n    test  # why\n  ```\n"
    first, second, third = docs.blocks("p", text)
    assert (first.line, first.language, first.text, first.told) == (4, "yaml", "x: 1\n", {"slow": "", "in": "a.b"})
    assert (second.language, second.text, second.told) == ("python", "```\n", {})
    assert docs.commands(third) == [["make", "test"]]
    assert shell.simple("A=1 B='x y' dvc pull && git push | jq '.a#b' > out.txt; # end") == [["dvc", "pull"], ["git", "push"], ["jq", ".a#b"]]


@pytest.mark.parametrize(
    ("line", "slow", "may"),
    [
        ("causalroute audit posts.csv", False, True),
        ("causalroute doctor", False, True),
        ("causalroute doctor --online", True, False),
        ("causalroute train posts.csv", False, False),
        ("causalroute train posts.csv", True, True),
        ("causalroute serve out/model", True, False),
        ("causalroute serve --help", False, True),
        ("make clean", True, False),
        ("git push", True, False),
        ("python -m benchmarks.noisy", True, False),
    ],
)
def test_what_may_be_run(line: str, slow: bool, may: bool) -> None:
    assert shell.runnable(line.split(), slow=slow) is may


def test_a_block_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = [docs.Block("p.md", 3, "python", "x = 1\n"), docs.Block("p.md", 9, "python", "print(y)\n")]
    monkeypatch.setattr(docs, "every", lambda: blocks)
    with pytest.raises(AssertionError, match=r"p\.md.*line 10[\s\S]*NameError"):
        run("p.md", tmp_path, slow=False)
    blocks[:] = [docs.Block("p.md", 3, "sh", "make test\n")]
    with pytest.raises(AssertionError, match=r"p\.md:3: make test is not run by the tests: say why"):
        docs.steps("p.md", slow=False)
