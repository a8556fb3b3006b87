// On a page of figures: one button a notebook; those pressed are shown, none pressed shows all.
document.addEventListener("DOMContentLoaded", () => {
  if (!/\/figures\/[^/]+\.html$/.test(location.pathname)) return;
  const sections = [...document.querySelectorAll(".bd-article section > section")].filter((s) => s.querySelector(":scope > h2"));
  if (sections.length < 2) return;
  const bar = document.createElement("p");
  bar.className = "filter";
  bar.setAttribute("role", "group");
  bar.setAttribute("aria-label", "Show figures of");
  const show = () => {
    const chosen = [...bar.querySelectorAll("[aria-pressed=true]")].map((button) => button.value);
    for (const section of sections) section.hidden = chosen.length > 0 && !chosen.includes(section.id);
  };
  for (const section of sections) {
    const button = document.createElement("button");
    button.type = "button";
    button.value = section.id;
    button.textContent = section.querySelector("h2").firstChild.textContent.trim();
    button.setAttribute("aria-pressed", "false");
    button.onclick = () => {
      button.setAttribute("aria-pressed", button.getAttribute("aria-pressed") !== "true");
      show();
    };
    bar.append(button);
  }
  sections[0].before(bar);
});
