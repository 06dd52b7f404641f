const data = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);

// Text goes in as text only, never as markup.
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}
function drawn(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}
function offer(select, labels) {
  select.replaceChildren(...labels.map((label, place) => element("option", { value: place }, label)));
}
function held(text) {
  return element("span", { class: "held" }, text);
}
function titled(title, text = "") {
  return element("caption", {}, element("span", { class: "told" }, element("strong", {}, title), text));
}
function clip(text, most) {
  const characters = Array.from(text);
  return characters.length > most ? `${characters.slice(0, most - 1).join("")}…` : text;
}
function reveal(id) {
  at(id).querySelector(".interactive").hidden = false;
}

