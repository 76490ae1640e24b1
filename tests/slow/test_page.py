"""The page at "/" in a real browser: Debian's Chromium, headless, driven by Selenium. With OCTET_SCREENSHOTS set to a folder,
what the browser shows is left there."""
import os
import pathlib
import shutil
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "e2e"))
from serving import Server  # noqa: E402

webdriver = pytest.importorskip("selenium.webdriver")
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

KEY = "secret"
pytestmark = pytest.mark.skipif(not (shutil.which("chromium") and shutil.which("chromedriver")), reason="no chromium and chromedriver here")


@pytest.fixture(scope="module")
def server(octet, model):
    server = Server(octet.program, model, "--quantization", "fp8")
    yield server
    server.stop()


@pytest.fixture
def browser():
    options = webdriver.ChromeOptions()
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--window-size=1280,860"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    yield driver
    # Nothing from elsewhere was asked for, no policy was broken, no script failed.
    messages = [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE" and " 401 " not in entry["message"]]
    driver.quit()
    assert messages == []


def find(browser, css):
    return browser.find_element(By.CSS_SELECTOR, css)


def wait(browser, what, timeout=60):
    return WebDriverWait(browser, timeout, poll_frequency=0.05).until(lambda _: what())


def picture(browser, name):
    if folder := os.environ.get("OCTET_SCREENSHOTS"):
        browser.save_screenshot(os.path.join(folder, f"{name}.png"))


def open_page(browser, server):
    browser.get(server.url + "/")
    wait(browser, lambda: find(browser, "#state").text == "ready")


def answers(browser):
    return browser.find_elements(By.CSS_SELECTOR, "#messages .assistant")


def texts(browser):
    """Of the answers; read at once, as their elements change while they come."""
    return browser.execute_script("return [...document.querySelectorAll('#messages .assistant')].map((e) => e.innerText)")


def is_done(browser):
    return find(browser, "#send").is_displayed() and not find(browser, "#stop-answer").is_displayed()


def test_chat_streams_and_goes_on_after_a_reload(server, browser):
    open_page(browser, server)
    assert "smol" in find(browser, "#model-name").text and "fp8" in find(browser, "#model-name").text
    find(browser, "#temperature").send_keys("0")
    find(browser, "#max_tokens").send_keys("60", Keys.TAB)
    find(browser, "#prompt").send_keys("What is the capital of France?", Keys.ENTER)
    wait(browser, lambda: answers(browser) and is_done(browser))
    first = answers(browser)[0].find_element(By.CSS_SELECTOR, ".said").text
    assert "Paris" in first
    note = answers(browser)[0].find_element(By.CSS_SELECTOR, ".who").text
    assert "tokens/s" in note and "first after" in note and "prompt" in note
    find(browser, "#prompt").send_keys("And of Italy?", Keys.ENTER)
    wait(browser, lambda: len(answers(browser)) == 2 and is_done(browser))
    picture(browser, "chat")
    browser.refresh()
    wait(browser, lambda: len(answers(browser)) == 2)
    assert answers(browser)[0].find_element(By.CSS_SELECTOR, ".said").text == first
    # The same question again, greedily, has the same answer.
    second = answers(browser)[1].find_element(By.CSS_SELECTOR, ".said").text
    [again] = [button for button in answers(browser)[1].find_elements(By.TAG_NAME, "button") if button.text == "Again"]
    again.click()
    wait(browser, lambda: len(answers(browser)) == 2 and is_done(browser) and answers(browser)[1].find_element(By.CSS_SELECTOR, ".said").text == second)
    find(browser, "#new-chat").click()
    assert not answers(browser)


def test_escape_stops_the_answer_here_and_at_the_server(server, browser):
    open_page(browser, server)
    find(browser, "#max_tokens").send_keys("2000", Keys.TAB)
    find(browser, "#prompt").send_keys("Tell me a very long story about the sea.", Keys.ENTER)
    wait(browser, lambda: texts(browser) and len(texts(browser)[0]) > 60)
    find(browser, "body").send_keys(Keys.ESCAPE)
    wait(browser, lambda: is_done(browser), 5)
    assert "stopped" in texts(browser)[0]
    wait(browser, lambda: server.get("/api/status")[1]["engine"]["running"] == 0, 5)


def test_what_people_and_models_write_is_text(server, browser):
    open_page(browser, server)
    markup = "<img src=x onerror=\"document.title='broken'\"><b>bold</b>"
    browser.execute_script("""localStorage.setItem("octet.chat", JSON.stringify([
        {role: "user", content: arguments[0]},
        {role: "assistant", content: arguments[0] + "\\n\\n```html\\n" + arguments[0] + "\\n```\\n\\n1. **one** `two`\\n2. *three*"}]))""", markup)
    browser.refresh()
    wait(browser, lambda: answers(browser))
    assert markup in find(browser, "#messages .user .said").text
    assert not browser.find_elements(By.CSS_SELECTOR, "#messages img, #messages b")
    assert find(browser, "#messages pre code").text == markup
    assert find(browser, "#messages ol strong").text == "one" and find(browser, "#messages ol em").text == "three"
    assert "broken" not in browser.title


def test_the_monitor_shows_what_runs(server, browser):
    open_page(browser, server)
    find(browser, "#max_tokens").send_keys("1500", Keys.TAB)
    find(browser, "#prompt").send_keys("Tell me a very long story about a mountain.", Keys.ENTER)
    wait(browser, lambda: texts(browser) and len(texts(browser)[0]) > 60)
    find(browser, "#tab-chat").send_keys(Keys.ARROW_RIGHT)
    cells = "return [...document.querySelectorAll('#requests tr')].map((row) => [...row.children].map((cell) => cell.innerText))"
    wait(browser, lambda: [row for row in browser.execute_script(cells) if row[1] == "decode" and int(row[5]) > 20])
    cards = {card.find_element(By.TAG_NAME, "h3").text: card for card in browser.find_elements(By.CSS_SELECTOR, ".card")}
    wait(browser, lambda: cards["Requests"].find_element(By.CSS_SELECTOR, ".now").text.startswith("1 running"))
    wait(browser, lambda: "ms" in cards["Between tokens"].text and cards["Output"].find_element(By.TAG_NAME, "path").get_attribute("d").count("L") > 2)
    assert "LlamaForCausalLM" in find(browser, "#facts").text and "weights" in find(browser, "#memory-text").text
    picture(browser, "monitor")
    find(browser, "#tab-chat").click()
    find(browser, "#stop-answer").click()


def test_on_a_phone_nothing_is_wider_than_the_screen(server, browser):
    browser.set_window_size(390, 800)
    for view in ("", "#monitor"):
        browser.get("about:blank")
        browser.get(server.url + "/" + view)
        wait(browser, lambda: find(browser, "#state").text == "ready")
        assert browser.execute_script("return document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        picture(browser, f"phone{view.replace('#', '-')}")
    assert find(browser, "#monitor").is_displayed()


def test_a_key_is_asked_for(octet, model, browser):
    server = Server(octet.program, model, "--api-key", KEY)
    try:
        browser.get(server.url + "/")
        wait(browser, lambda: find(browser, "#key").is_displayed())
        find(browser, "#key").send_keys(KEY, Keys.ENTER)
        wait(browser, lambda: find(browser, "#state").text == "ready")
        assert not find(browser, "#key").is_displayed()
    finally:
        server.stop()
