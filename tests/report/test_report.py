"""The page of real runs: one run, two runs, a killed run, another trainer's run, and runs with hostile texts."""

import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from hpt_trl.commands.report import ReportArguments, main, report
from hpt_trl.monitoring.samples import Sample, SampleLog
from hpt_trl.report.charts import PANELS
from hpt_trl.report.page import render
from hpt_trl.report.render import panel_svgs, plot_run, write_png
from hpt_trl.report.run_folder import read_run
from tests.tiny import make_trainer

EVIL = '</pre><script>alert("1")</script><img src=http://evil.example/x.png onerror=alert(2)>{{ 7 * 7 }} & \\boxed{1}'
VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(HTMLParser):
    """Tags, attributes and text of a page; checks that tags are nested correctly."""

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
    """Folders of an HPT run, of a GRPO run with the same trainer, and of a run with TRL's trainer."""
    place = tmp_path_factory.mktemp("runs")
    folders = {"hpt": {}, "grpo": {"gate": "off", "skip_grad_norm_above": 0.01}, "trl": {"hpt": False}}
    for name, options in folders.items():
        saves = {"save_strategy": "steps", "save_steps": 6} if name == "trl" else {}
        make_trainer(tiny_model, place / name, max_steps=6, **saves, **options).train()
    return place


@pytest.fixture(scope="module")
def written(runs, tmp_path_factory):
    """The report of the HPT run, with a sample that attempts HTML injection."""
    folder = shutil.copytree(runs / "hpt", tmp_path_factory.mktemp("evil") / "hpt & <b>more")
    samples = SampleLog()
    samples.latest = [Sample(5, EVIL, EVIL, {"parity_reward": 1.0}, {"verdict": EVIL, "answer": EVIL})]
    samples.write(folder)
    return report(ReportArguments([str(folder)]))


@pytest.fixture(scope="module")
def page(written):
    return written.read_text()


def test_the_page_has_all_sections_and_panels(page):
    parsed = Page(page)
    headings = [panel.title for panel in PANELS if panel.name not in ("verdicts", "kl", "clipped")]
    for heading in ("Findings", "Key metrics", "Samples", "Settings", *headings):
        assert heading in parsed.text
    assert "Finished: 6 of 6 optimizer steps." in parsed.text
    assert parsed.tags.count("svg") == len(headings) == 13
    assert "accuracy_reward was not among the reward functions" in parsed.text
    assert "No KL divergence was logged: beta was 0." in parsed.text
    assert "No probability ratio was clipped." in parsed.text
    for unit in ("nats per token", "seconds per step", "optimizer step"):
        assert unit in parsed.text


def test_the_page_makes_no_network_request(page):
    parsed = Page(page)
    assert not {"script", "iframe", "object", "embed", "base", "form", "link"} & set(parsed.tags)
    for tag, name, value in parsed.attributes:
        assert not name.startswith("on"), (tag, name)
        if name in ("src", "href", "xlink:href", "srcset", "style", "action", "data"):
            assert not re.search(r"https?:|//", value.replace("data:image/png;base64", "").partition(",")[0]), value
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)
    assert "default-src 'none'" in page


def test_texts_of_a_run_are_escaped(page):
    parsed = Page(page)
    assert parsed.texts.count(EVIL) == 2  # prompt and completion, character by character
    assert "img" not in parsed.tags
    assert "49" not in parsed.text.split("{{ 7 *")[1][:20]
    assert "hpt & <b>more" in parsed.texts


def test_ids_in_the_page_are_unique_and_defined(page):
    parsed = Page(page)
    ids = [value for _, name, value in parsed.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    used = {value[1:] for _, name, value in parsed.attributes if name == "xlink:href" and value.startswith("#")}
    used |= {target for _, _, value in parsed.attributes for target in re.findall(r"url\(#([^)]+)\)", value)}
    assert used
    assert used <= set(ids)


def test_the_page_is_readable_in_light_and_dark_mode(page):
    root, dark = re.findall(r":root \{(.*?)\}", page, flags=re.DOTALL)
    names = set(re.findall(r"(--[\w-]+):", root))
    assert names <= set(re.findall(r"(--[\w-]+):", dark)) | {"--page", "--card"}
    assert set(re.findall(r"var\((--[\w-]+)\)", page)) <= names
    # WCAG requires a contrast of at least 4.5 for text.
    for scheme in (root, dark):
        colors = dict(re.findall(r"(--[\w-]+): (#\w{6})", scheme))
        for text in ("--ink", "--muted"):
            for background in ("--page", "--card"):
                assert contrast(colors[text], colors[background]) >= 4.5, (text, background)


def contrast(first, second):
    def luminance(color):
        linear = [
            value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
            for value in (int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
        ]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_the_figures_are_not_blank(written):
    figures = list(written.parent.glob("*.png"))
    assert len(figures) == 13
    for path in figures:
        pixels = np.asarray(Image.open(path).convert("RGB"))[::5, ::5].reshape(-1, 3)
        assert len(np.unique(pixels, axis=0)) > 20, path
        assert (pixels < 250).any(axis=1).mean() > 0.02, path


def test_two_runs_are_shown_side_by_side_on_the_same_scales(runs, tmp_path):
    both = [read_run(runs / name) for name in ("hpt", "grpo")]
    page = render(both)
    parsed = Page(page)
    assert parsed.tags.count("svg") == 2 * 13 - 1  # only one run has an NLL of demonstrations
    assert "No step was trained on a demonstration." in parsed.text
    # The settings contain the options that differ between the runs, but not their output folders.
    settings = parsed.text.split("Settings")[1].split("All options")[0]
    assert "gate switch off" in settings
    assert "skip_grad_norm_above \N{EN DASH} 0.01" in settings
    assert "output_dir" not in settings
    ticks = [re.findall(r">([\d.]+)</text>", svg) for svg in re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)]
    assert ticks[0] == ticks[1]
    write_png(PANELS[:1], both, tmp_path / "two.png")
    plot_run(runs / "hpt", tmp_path / "overview.png")
    two, overview = (Image.open(tmp_path / name).width for name in ("two.png", "overview.png"))
    assert two * 3 == overview * 2  # two figures side by side, and three


def test_skipped_steps_are_reported_and_drawn(runs):
    parsed = Page(render([read_run(runs / "grpo")]))
    assert re.search(r"\d optimizer steps? skipped", parsed.text)
    assert "step skipped" in parsed.text


def test_the_page_says_what_a_run_of_trl_did_not_record(runs):
    parsed = Page(render([read_run(runs / "trl")]))
    assert "Reward and solve rate" in parsed.text
    for sentence in (
        "No gate.parquet",
        "No configuration was recorded",
        "no _record/run.json",
        "recorded no completions",
    ):
        assert sentence in parsed.text
    assert "None" not in parsed.text
    assert "nan" not in parsed.text.lower().split()


def test_a_run_that_was_killed_before_its_first_log_entry_has_a_page(runs, tmp_path):
    folder = tmp_path / "early"
    folder.mkdir()
    shutil.copy(runs / "hpt" / "gate.parquet", folder)
    parsed = Page(render([read_run(folder)]))
    assert "Not finished: 5 optimizer steps." in parsed.text
    assert "Gate: solve rate by step" in parsed.text
    assert "Only 0 steps logged" in parsed.text


def test_a_folder_that_is_not_a_run_is_reported_in_one_paragraph(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main([str(tmp_path)])
    assert stop.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"hpt-trl report: error: '{tmp_path}' is not a run folder")


@pytest.mark.parametrize("argv", [[], ["a", "b", "c"], ["a", "--color", "red"]])
def test_invalid_arguments_are_reported(argv, capsys):
    with pytest.raises(SystemExit) as stop:
        main(argv)
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("hpt-trl report: error: ")


def test_a_folder_that_cannot_be_written_is_reported(runs, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as stop:
        main([str(runs / "hpt"), "--output", str(tmp_path / "file")])
    assert stop.value.code == 1
    assert "file" in capsys.readouterr().err


def test_the_command_prints_the_path_of_the_page(runs, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    shutil.copy(runs / "hpt" / "gate.parquet", tmp_path / "run")  # the smallest set of files that can be drawn
    main([str(tmp_path / "run"), "--output", str(tmp_path / "new" / "folder")])
    assert capsys.readouterr().out.strip() == f"Report written to {tmp_path / 'new' / 'folder' / 'report.html'}."


def test_every_chart_of_metrics_has_a_table_of_its_values(runs):
    run = read_run(runs / "hpt")
    parsed = Page(render([run]))
    assert parsed.text.count("Values") >= 8
    # A chart names only metrics that a run can log.
    named = {name for panel in PANELS for name in panel.metrics}
    assert {"learning_rate", "hpt/solve_rate", "entropy"} <= named & set(run.log)
    rate = run.series("learning_rate")
    assert f"{rate.iloc[0]:.4g}" in parsed.text
    assert f"{rate.iloc[-1]:.4g}" in parsed.text


def test_a_curve_is_drawn_once_where_reward_and_solve_rate_are_the_same(runs):
    from matplotlib.figure import Figure

    run = read_run(runs / "hpt")
    (panel,) = (panel for panel in PANELS if panel.name == "reward")

    def lines(rewards):
        axes = Figure().add_subplot()
        panel.draw(axes, replace(run, log=run.log.assign(reward=rewards)))
        return axes.get_legend_handles_labels()[1]

    assert lines(run.log["hpt/solve_rate"]) == ["solve rate, equal to mean reward"]
    assert lines(run.log["hpt/solve_rate"] + 1) == ["solve rate", "mean reward"]


def test_the_page_names_no_folder_of_the_machine(runs, tmp_path):
    run = read_run(runs / "hpt")
    facts = run.facts | {"model": "/home/me/models/base"}
    facts["config"] = run.config | {"a": {"cache": "/home/me/cache"}, "b": "C:\\Users\\me\\x", "c": "https://a.b/c/d"}
    text = Page(render([replace(run, facts=facts)])).text
    assert "model base" in text
    assert "{'cache': 'cache'}" in text
    assert "https://a.b/c/d" in text
    assert not any(word in text for word in ("/home/", "Users", str(runs), str(runs.parent)))


def test_answer_and_solution_are_shown_in_one_notation(runs):
    sample = Sample(0, "6*7?", "It is \\boxed{42}.", {"r": 1.0}, {"answer": "42", "solution": "$\\boxed{42}$"})
    text = Page(render([replace(read_run(runs / "hpt"), samples=[sample])])).text
    assert "answer: 42 solution: 42" in text


def test_a_sample_that_learned_from_its_demonstration_shows_it(runs):
    run = read_run(runs / "hpt")
    learned = [sample for sample in run.samples if sample.learned_from == "a demonstration"]
    # `so 6!!!`: the tiny model's data.
    assert learned
    assert all(sample.demonstration and sample.demonstration.startswith("so ") for sample in learned)
    assert not any(sample.demonstration for sample in run.samples if sample.learned_from == "its rollouts")
    text = Page(render([replace(run, samples=learned[:1])])).text
    assert f"Demonstration {learned[0].demonstration}" in text


def test_the_axes_of_all_charts_begin_and_end_at_the_same_place(page, runs):
    svgs = [panel_svgs(panel, [read_run(runs / "hpt")])[0] for panel in PANELS]
    frames = {re.search(r'id="[^"]*patch_2"[^>]*>\s*<path d="([^"]*)"', svg)[1] for svg in svgs if svg}
    assert len(frames) == 1
