"""The page of real runs: one, two, killed, another trainer's; whatever texts are in them."""

import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from hpt_trl.commands.report import ReportArguments, main, report
from hpt_trl.monitoring.samples import Sample, SampleLog
from hpt_trl.report.charts import PANELS
from hpt_trl.report.page import render
from hpt_trl.report.render import plot_run, write_png
from hpt_trl.report.run_folder import read_run
from tests.tiny import make_trainer

EVIL = '</pre><script>alert("1")</script><img src=http://evil.example/x.png onerror=alert(2)>{{ 7 * 7 }} & \\boxed{1}'
VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(HTMLParser):
    """Tags, attributes and text of a page whose tags are closed in the order they were opened."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.texts, self.open = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


@pytest.fixture(scope="module")
def runs(tiny_model, tmp_path_factory):
    """Folders of a run of HPT, one of GRPO by the same trainer, and one of TRL's trainer."""
    place = tmp_path_factory.mktemp("runs")
    folders = {"hpt": {}, "grpo": {"gate": "off", "skip_grad_norm_above": 0.01}, "trl": {"hpt": False}}
    for name, options in folders.items():
        saves = {"save_strategy": "steps", "save_steps": 6} if name == "trl" else {}
        make_trainer(tiny_model, place / name, max_steps=6, **saves, **options).train()
    return place


@pytest.fixture(scope="module")
def written(runs, tmp_path_factory):
    """The report of the run of HPT, with a sample that a web page should better not believe."""
    folder = shutil.copytree(runs / "hpt", tmp_path_factory.mktemp("evil") / "hpt & <b>more")
    samples = SampleLog()
    samples.latest = [Sample(5, EVIL, EVIL, {"parity_reward": 1.0}, {"verdict": EVIL, "answer": EVIL})]
    samples.write(folder)
    return report(ReportArguments([str(folder)]))


@pytest.fixture(scope="module")
def page(written):
    return written.read_text()


def test_the_page_holds_what_a_reader_wants(page):
    found = Page(page)
    headings = [panel.title for panel in PANELS if panel.name != "verdicts"]
    for heading in ("What stands out", "In numbers", "Samples", "Settings", *headings):
        assert heading in found.text
    assert "Finished: 6 of 6 optimizer steps." in found.text
    assert found.tags.count("svg") == len(headings) == 12
    assert "accuracy_reward was not among the reward functions" in found.text
    for unit in ("nats per token", "seconds a step", "optimizer step"):
        assert unit in found.text


def test_the_page_asks_nothing_of_the_network(page):
    found = Page(page)
    assert not {"script", "iframe", "object", "embed", "base", "form", "link"} & set(found.tags)
    for tag, name, value in found.attributes:
        assert not name.startswith("on"), (tag, name)
        if name in ("src", "href", "xlink:href", "srcset", "style", "action", "data"):
            assert not re.search(r"https?:|//", value.replace("data:image/png;base64", "").partition(",")[0]), value
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)
    assert "default-src 'none'" in page


def test_texts_of_a_run_are_shown_and_not_obeyed(page):
    found = Page(page)
    assert found.texts.count(EVIL) == 2  # prompt and completion, letter by letter
    assert "img" not in found.tags
    assert "49" not in found.text.split("{{ 7 *")[1][:20]
    assert "hpt & <b>more" in found.texts


def test_ids_in_the_page_are_unique_and_known(page):
    found = Page(page)
    ids = [value for _, name, value in found.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    used = {value[1:] for _, name, value in found.attributes if name == "xlink:href" and value.startswith("#")}
    used |= {each for _, _, value in found.attributes for each in re.findall(r"url\(#([^)]+)\)", value)}
    assert used
    assert used <= set(ids)


def test_the_page_is_readable_light_and_dark(page):
    root, dark = re.findall(r":root \{(.*?)\}", page, flags=re.DOTALL)
    names = set(re.findall(r"(--[\w-]+):", root))
    assert names <= set(re.findall(r"(--[\w-]+):", dark)) | {"--page", "--card"}
    assert set(re.findall(r"var\((--[\w-]+)\)", page)) <= names
    # WCAG's contrast of texts: 4.5 and more.
    for scheme in (root, dark):
        colours = dict(re.findall(r"(--[\w-]+): (#\w{6})", scheme))
        for text in ("--ink", "--muted"):
            for ground in ("--page", "--card"):
                assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)


def contrast(one, other):
    def luminance(colour):
        linear = [
            value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
            for value in (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
        ]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_the_pictures_are_not_blank(written):
    pictures = list(written.parent.glob("*.png"))
    assert len(pictures) == 12
    for path in pictures:
        pixels = np.asarray(Image.open(path).convert("RGB"))[::5, ::5].reshape(-1, 3)
        assert len(np.unique(pixels, axis=0)) > 20, path
        assert (pixels < 250).any(axis=1).mean() > 0.02, path


def test_two_runs_stand_side_by_side_on_the_same_scales(runs, tmp_path):
    both = [read_run(runs / name) for name in ("hpt", "grpo")]
    page = render(both)
    found = Page(page)
    assert found.tags.count("svg") == 2 * 12 - 1  # demonstrations' NLL of the one alone
    assert "No step learned from a demonstration." in found.text
    # What tells the runs apart is among the settings; where they were written is not.
    settings = found.text.split("Settings")[1].split("All options")[0]
    assert "gate switch off" in settings
    assert "skip_grad_norm_above \N{EN DASH} 0.01" in settings
    assert "output_dir" not in settings
    ticks = [re.findall(r">([\d.]+)</text>", svg) for svg in re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)]
    assert ticks[0] == ticks[1]
    write_png(PANELS[:1], both, tmp_path / "two.png")
    plot_run(runs / "hpt", tmp_path / "overview.png")
    two, overview = (Image.open(tmp_path / name).width for name in ("two.png", "overview.png"))
    assert two * 3 == overview * 2  # two pictures in a line, and three


def test_skipped_steps_are_told_and_drawn(runs):
    found = Page(render([read_run(runs / "grpo")]))
    assert re.search(r"\d optimizer steps? skipped", found.text)
    assert "step skipped" in found.text


def test_what_a_run_of_trl_did_not_record_is_said(runs):
    found = Page(render([read_run(runs / "trl")]))
    assert "Reward and solve rate" in found.text
    for sentence in (
        "No gate.parquet",
        "No configuration was recorded",
        "no _record/run.json",
        "recorded no completions",
    ):
        assert sentence in found.text
    assert "None" not in found.text
    assert "nan" not in found.text.lower().split()


def test_a_run_that_was_killed_before_its_first_log_has_a_page(runs, tmp_path):
    folder = tmp_path / "early"
    folder.mkdir()
    shutil.copy(runs / "hpt" / "gate.parquet", folder)
    found = Page(render([read_run(folder)]))
    assert "Not finished: 5 optimizer steps." in found.text
    assert "Gate: solve rates, step by step" in found.text
    assert "0 steps logged: too few to judge." in found.text


def test_a_folder_that_is_no_run_ends_in_one_paragraph(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main([str(tmp_path)])
    assert stop.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"hpt-trl report: error: '{tmp_path}' is not the folder of a run")


@pytest.mark.parametrize("argv", [[], ["a", "b", "c"], ["a", "--colour", "red"]])
def test_a_command_that_cannot_be_meant_is_told(argv, capsys):
    with pytest.raises(SystemExit) as stop:
        main(argv)
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("hpt-trl report: error: ")


def test_a_folder_that_cannot_be_written_is_told(runs, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as stop:
        main([str(runs / "hpt"), "--output", str(tmp_path / "file")])
    assert stop.value.code == 1
    assert "file" in capsys.readouterr().err


def test_the_command_says_where_the_page_is(runs, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    shutil.copy(runs / "hpt" / "gate.parquet", tmp_path / "run")  # the least there is to draw
    main([str(tmp_path / "run"), "--output", str(tmp_path / "new" / "folder")])
    assert capsys.readouterr().out.strip() == f"Report written to {tmp_path / 'new' / 'folder' / 'report.html'}."
