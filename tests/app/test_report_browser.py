"""Reports in a real browser: no message on the console, nothing asked of the network, all fits."""

import shutil

import pytest
from tiny_report import write_cross_validation

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no browser; apt-get install chromium"),
]


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    with api.sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])


@pytest.fixture(scope="module")
def pages(output, tmp_path_factory):
    """Of four subjects, of all of them, and of a cross-validation."""
    cohort = write_cross_validation(tmp_path_factory.mktemp("crossval"))
    return [*sorted(output.rglob("*.html")), cohort]


@pytest.fixture
def visit(browser):
    """Open a page; messages and requests are noted."""
    contexts = []

    def visit(path, width=1280, scheme="light"):
        contexts.append(
            browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        )
        page = contexts[-1].new_page()
        page.set_default_timeout(240_000)  # a busy machine is no fault of a page
        page.seen = []
        page.on("console", lambda message: page.seen.append(message.text))
        page.on("pageerror", lambda error: page.seen.append(str(error)))
        page.on("dialog", lambda dialog: page.seen.append(dialog.message))
        page.on("request", lambda request: page.seen.append(request.url))
        page.goto(path.as_uri())
        return page

    yield visit
    for context in contexts:
        context.close()


def outside(page, path):
    return [text for text in page.seen if text != path.as_uri() and not text.startswith("data:")]


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_pages_ask_nothing_complain_of_nothing_and_fit(visit, pages, width, scheme):
    for path in pages:
        page = visit(path, width, scheme)
        assert outside(page, path) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.evaluate("[...document.images].every((i) => i.complete && i.naturalWidth > 0)")


# Texts of less than 4.5 : 1 against what lies behind them (WCAG 2.2, 1.4.3), 3 : 1 where large.
PALE = """() => {
  const part = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  const rgba = (text) => text.match(/[\\d.]+/g).map(Number);
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const colour = rgba(getComputedStyle(node).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const pale = [];
  for (const node of document.body.querySelectorAll(":not(svg, svg *, script, style)")) {
    const texts = [...node.childNodes].filter((child) => child.nodeType === 3);
    const text = texts.map((child) => child.data).join("").trim();
    if (!text || !node.getClientRects().length) continue;
    const style = getComputedStyle(node);
    const [a, b] = [light(rgba(style.color)), light(behind(node))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < (parseFloat(style.fontSize) >= 24 ? 3 : 4.5)) pale.push([text, ratio]);
  }
  return pale;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out(visit, pages, scheme):
    for path in pages:
        page = visit(path, 1280, scheme)
        assert page.evaluate(PALE) == []
    page.add_style_tag(content=".note{color:#888;background:#999}")  # it can fail
    assert page.evaluate(PALE)


def test_what_is_tapped_on_a_phone_is_large_enough(visit, output, pages):
    small = """[...document.querySelectorAll("a,button,input,select,summary")]
      .filter((node) => node.getClientRects().length)
      .map((node) => (node.type === "checkbox" ? node.parentElement : node).getBoundingClientRect())
      .filter((box) => box.width < 44 || box.height < 40).length"""
    for path in pages:
        assert visit(path, 390).evaluate(small) == 0
    assert visit(output / "index.html", 1280).evaluate(small) > 0  # it can fail


def sheets(page):
    """How many A4 sheets a page prints on."""
    return page.pdf(prefer_css_page_size=True).count(b"/Type /Page\n")


@pytest.mark.parametrize("number", range(4))
def test_a_subject_prints_on_three_sheets_and_one_without_a_number_on_one(visit, output, number):
    page = visit(output / "subjects" / f"SUBJ_00{number}" / "report.html")
    assert sheets(page) <= (3, 3, 1, 1)[number]  # number 2 abstained, 3 failed
    page.add_style_tag(content="@media print{.card{min-height:250mm}}")  # it can fail
    assert sheets(page) > 3


def test_print_unfolds_what_is_folded_and_leaves_out_what_only_a_screen_has_room_for(visit, output):
    page = visit(output / "subjects" / "SUBJ_000" / "report.html")
    height = "document.querySelector('details:not(.screen)').getBoundingClientRect().height"
    shown = "[...document.querySelectorAll('details.screen')].map(d => d.getClientRects().length)"
    folded = page.evaluate(height)
    assert page.evaluate(shown) == [1, 1]  # all slices, and the settings
    page.emulate_media(media="print")
    assert page.evaluate(height) > folded + 50
    assert page.evaluate(shown) == [0, 0]


def test_a_listener_would_notice(visit, tmp_path):
    """The checks above can fail."""
    path = tmp_path / "bad.html"
    path.write_text("<img src='http://127.0.0.1:9/x.png'><script>console.error('oh')</script>")
    page = visit(path)
    page.wait_for_timeout(200)
    assert {"oh", "http://127.0.0.1:9/x.png"} <= set(outside(page, path))


def test_the_policy_stops_a_script_that_got_in(visit, output, tmp_path):
    path = tmp_path / "index.html"
    html = (output / "index.html").read_text()
    path.write_text(html.replace("</main>", "<script>document.title = 'owned'</script></main>"))
    assert visit(path).title() != "owned"


def test_index_searches_filters_and_sorts(visit, output):
    page = visit(output / "index.html")
    shown = "[...document.querySelectorAll('tbody tr:not([hidden])')].map(r => r.dataset.subject)"
    everyone = [f"SUBJ_00{number}" for number in range(4)]
    assert page.evaluate(shown) == everyone
    page.fill("#search", "subj_001")
    assert page.evaluate(shown) == ["SUBJ_001"]
    assert page.inner_text("#count") == "1 of 4 shown"
    page.fill("#search", "alert(1)")
    assert page.evaluate(shown) == ["SUBJ_001", "SUBJ_003"]  # a flag, an error
    page.fill("#search", "")
    page.select_option("#show", "abstained")
    assert page.evaluate(shown) == ["SUBJ_002"]
    page.select_option("#show", "")
    page.select_option("#sort", "prob:up")
    assert page.evaluate(shown) == ["SUBJ_001", "SUBJ_000", "SUBJ_002", "SUBJ_003"]
    page.click("button[data-key=subject]")
    page.click("button[data-key=subject]")
    assert page.evaluate(shown) == everyone[::-1]
    assert page.get_attribute("th:has([data-key=subject])", "aria-sort") == "descending"
    assert outside(page, output / "index.html") == []


def test_contours_can_be_switched_off(visit, output):
    page = visit(output / "subjects" / "SUBJ_000" / "report.html")
    hidden = "getComputedStyle(document.querySelector('.overlay')).display"
    assert page.evaluate(hidden) != "none"
    page.uncheck("#outlines")
    assert page.evaluate(hidden) == "none"
