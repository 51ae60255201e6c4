"""Looks at the dashboard as people do. Started by dashboard_test.sh."""

import json
import pathlib
import sys
import time
import urllib.request

from playwright.sync_api import sync_playwright

URL, KEY, ADMIN, BROWSER, AXE = sys.argv[1:6]
SHOTS = pathlib.Path(sys.argv[6]) if len(sys.argv) > 6 else None
QUESTIONS = {
    "sql": "How many orders were placed in Graz?",
    "triage": "My lamp arrived broken",
    "spanish": "Where is the red lamp?",
    "extract": "Hello, my red kettle from order 40231 arrived broken. I want my money back. Ada Novak",
    "reply": "My parcel is late",
}
SIZES = {"wide": (1280, 900), "narrow": (360, 740)}
PATIENCE = 120000  # milliseconds
failures = []


def ask(model, text):
    body = {"model": model, "temperature": 0, "max_tokens": 60, "messages": [{"role": "user", "content": text}]}
    headers = {"Content-Type": "application/json", "Authorization": "Bearer " + KEY}
    request = urllib.request.Request(URL + "/v1/chat/completions", json.dumps(body).encode(), headers)
    return json.load(urllib.request.urlopen(request))["receipt"]["id"]


def expect(what, true):
    print(("ok      " if true else "FAILED  ") + what, flush=True)
    if not true:
        failures.append(what)


def sign_in(page, key):
    page.goto(URL + "/dashboard/login")
    page.fill("#key", key)
    page.click("main button")
    page.wait_for_url(lambda url: not url.endswith("/login"))


def audit(page, name):
    page.evaluate(AXE_SOURCE)
    found = page.evaluate("axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa']})")
    for violation in found["violations"]:
        for node in violation["nodes"][:3]:
            print("   ", violation["id"], node["target"], node.get("failureSummary", "").replace("\n", " ")[:200])
    expect(f"axe: {name}", not found["violations"] and len(found["passes"]) > 5)
    wider = page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth + 1")
    expect(f"fits its width: {name}", not wider)


def statement(page):
    page.goto(URL + "/dashboard/ledger")
    page.get_by_role("button", name="Make a statement now").click()
    page.locator("a", has_text="all balances").first.wait_for()
    expect("a statement is made and listed", True)


def new_page(browser, **options):
    context = browser.new_context(**options)
    context.set_default_timeout(PATIENCE)
    return context, context.new_page()


AXE_SOURCE = pathlib.Path(AXE).read_text()
receipts = [ask(model, text) for model, text in QUESTIONS.items() for _ in range(3)]
ask("lockstep-demo", "<script>document.title='run'</script>")
time.sleep(11)  # a record of the device's time is written every ten seconds

with sync_playwright() as play:
    browser = play.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"], timeout=PATIENCE)
    PAGES = {
        "overview": "/dashboard",
        "playground": "/dashboard/playground",
        "receipts": "/dashboard/receipts",
        "receipt": "/dashboard/receipt?id=" + receipts[-1],
        "ledger": "/dashboard/ledger",
        "account": "/dashboard/account?name=customer:ada",
        "adapters": "/dashboard/adapters",
        "health": "/dashboard/health",
        "statistics": "/dashboard/statistics",
        "nowhere": "/dashboard/receipt?id=none",
        "login": "/dashboard/login",
        "welcome": "/",
    }
    for scheme in ("light", "dark"):
        for size, (width, height) in SIZES.items():
            # bypass_csp: axe is put into the page by the test; the policy itself is tested below.
            viewport = {"width": width, "height": height}
            context, page = new_page(browser, color_scheme=scheme, viewport=viewport, bypass_csp=True)
            page.on("pageerror", lambda error: failures.append(f"script: {error}"))
            sign_in(page, ADMIN)
            if scheme == "light" and size == "wide":
                statement(page)
            for name, path in PAGES.items():
                page.goto(URL + path)
                audit(page, f"{name}, {size}, {scheme}")
                if SHOTS:
                    page.screenshot(path=SHOTS / f"{name}-{size}-{scheme}.png", full_page=True)
            # What is computed in place: a dispute and a light check.
            for name, button in {"dispute": "The node gets one dot product wrong", "light": "Falsify one sum, then check"}.items():
                page.goto(URL + PAGES["receipt"])
                page.get_by_role("button", name=button).click()
                page.locator(".walk-here .verdict.differs").wait_for()
                expect(f"{name}: caught, {size}, {scheme}", page.locator(".walk-here strong", has_text="lied" if name == "dispute" else "Caught").count() == 1)
                audit(page, f"{name}, {size}, {scheme}")
                if SHOTS:
                    page.locator(".walk-here").screenshot(path=SHOTS / f"{name}-{size}-{scheme}.png")
            context.close()

    # The playground with scripts, under the policy as it is.
    context, page = new_page(browser, viewport={"width": 1280, "height": 900})
    blocked = []
    page.on("console", lambda message: blocked.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: blocked.append(str(error)))
    sign_in(page, ADMIN)
    page.goto(URL + "/dashboard/playground")
    for box in page.query_selector_all("input[name=model]"):
        box.set_checked(box.get_attribute("value") in ("triage", "reply"))
    page.fill("#prompt", "<b>My lamp</b> arrived broken")
    page.click("text=Ask >> nth=-1")
    page.wait_for_selector("#answers section:nth-child(2) [data-receipt]:not([hidden])")
    page.wait_for_selector("#answers section:nth-child(1) [data-receipt]:not([hidden])")
    expect("two answers stream side by side", page.locator("#answers section").count() == 2)
    one = page.locator("#answers section").first
    for button, word in [("Check", "Equal."), ("Tamper with the answer, then check", "Caught."), ("Cut the answer short", "Caught.")]:
        one.get_by_role("button", name=button, exact=True).click()
        one.locator(".verdict strong", has_text=word).first.wait_for()
        expect(f"{button}: {word}", True)
        if SHOTS and button.startswith("Tamper"):
            page.screenshot(path=SHOTS / "caught.png", full_page=True)
    one.locator("select").select_option("sql")
    one.get_by_role("button", name="Swap the adapter, then check").click()
    one.locator(".verdict", has_text="computed with sql").wait_for()
    expect("swapping the adapter is caught", "Caught." in one.inner_text())
    page.goto(URL + "/dashboard")
    before = page.locator("[data-live=receipts]").inner_text()
    ask("triage", "again")
    page.wait_for_function("before => document.querySelector('[data-live=receipts]').textContent !== before", arg=before)
    expect("live numbers change by themselves", True)
    page.goto(URL + "/dashboard/receipts")
    expect("nothing of a prompt was run", page.title() != "run")
    expect(f"the policy blocks nothing of our own {blocked}", not blocked)
    # By keyboard: the first stop leads to the content.
    page.keyboard.press("Tab")
    expect("the first stop of the keyboard leads to the content", page.evaluate("document.activeElement.className") == "skip")
    context.close()

    # A customer's own proof.
    context, page = new_page(browser, viewport={"width": 1280, "height": 900}, accept_downloads=True)
    sign_in(page, KEY)
    page.goto(URL + "/dashboard/ledger")
    with page.expect_download() as download:
        page.locator("a", has_text="proof").first.click()
    expect("a customer downloads the proof of its balance", "customer:ada" in pathlib.Path(download.value.path()).read_text())
    context.close()

    # Without scripts everything is there.
    context, page = new_page(browser, java_script_enabled=False)
    sign_in(page, KEY)
    page.goto(URL + "/dashboard/playground")
    page.click("form[data-stream] button")
    page.locator("#answers section .answer").nth(1).wait_for(state="attached")
    expect("without scripts a form is answered", page.locator("#answers section .answer").count() == 2)
    page.locator("#answers section").first.get_by_role("button", name="Check", exact=True).click()
    page.locator(".verdict.equal").first.wait_for()
    expect("without scripts an answer is checked", page.locator(".verdict.equal").count() == 1)
    browser.close()

print(f"{len(failures)} failed")
sys.exit(1 if failures else 0)
