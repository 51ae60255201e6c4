"use strict";
// Everything works without this: it only saves reloading. Live numbers, forms answered in place, answers as they come.
const all = (selector, within = document) => [...within.querySelectorAll(selector)];

// Numbers that are live: the server sends them by name.
if (all("[data-live]").length > 0) {
  const events = new EventSource("/dashboard/live");
  events.onmessage = (event) => {
    const numbers = JSON.parse(event.data);
    for (const place of all("[data-live]")) {
      if (place.dataset.live in numbers) place.textContent = numbers[place.dataset.live];
    }
  };
}

const post = (form, button, url) => {
  const fields = new URLSearchParams(new FormData(form, button));
  return fetch(url ?? button?.getAttribute("formaction") ?? form.action, { method: "POST", body: fields, headers: { "x-inline": "1" } });
};

// Forms whose answer belongs beside them.
document.addEventListener("submit", async (event) => {
  const form = event.target;
  const into = form.dataset.inline && form.closest("[data-around]")?.querySelector("." + form.dataset.inline);
  if (!into) return;
  event.preventDefault();
  into.textContent = "Working";
  into.classList.add("thinking");
  const response = await post(form, event.submitter).catch((error) => error);
  into.innerHTML = response.ok ? await response.text() : "";
  if (!response.ok) into.textContent = response.text ? await response.text() : String(response);
  into.classList.remove("thinking");
});

// One answer, as it comes.
const stream = async (form, model, place) => {
  const fields = new URLSearchParams(new FormData(form));
  fields.delete("model");
  fields.set("model", model);
  const said = place.querySelector(".answer");
  said.classList.add("thinking");
  const response = await fetch("/dashboard/playground/stream", { method: "POST", body: fields, headers: { "x-inline": "1" } });
  if (!response.ok) return said.replaceChildren(await response.text());
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = "", part; !(part = await reader.read()).done; ) {
    const events = (rest + part.value).split("\n\n");
    rest = events.pop();
    for (const data of events.filter((event) => event.startsWith("data: {")).map((event) => JSON.parse(event.slice(6)))) {
      if (data.error) said.append(data.error.message);
      said.append(data.choices?.[0]?.delta?.content ?? "");
      if (data.receipt) all("input[name=id]", place).forEach((field) => { field.value = data.receipt.id; });
      if (data.receipt) all("[data-receipt]", place).forEach((shown) => { shown.hidden = false; });
      if (data.receipt) all("a[data-receipt-link]", place).forEach((link) => { link.href = "/dashboard/receipt?id=" + data.receipt.id; });
    }
  }
};

const playground = document.querySelector("form[data-stream]");
playground?.addEventListener("submit", (event) => {
  event.preventDefault();
  const answers = document.querySelector("#answers");
  const template = document.querySelector("#answer");
  answers.replaceChildren();
  for (const box of all("input[name=model]:checked", playground)) {
    const place = template.content.cloneNode(true).firstElementChild;
    place.querySelector("h3").textContent = box.value;
    answers.append(place);
    stream(playground, box.value, place)
      .catch((error) => place.querySelector(".answer").append(String(error)))
      .finally(() => place.querySelector(".answer").classList.remove("thinking"));
  }
  if (answers.children.length === 0) answers.textContent = "Choose a model first.";
});
