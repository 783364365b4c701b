const form = document.querySelector("form.filter");
const cards = [...document.querySelectorAll("article")];
const show = () => {
  const wanted = [...new FormData(form)].filter(([, value]) => value);
  let shown = 0;
  for (const card of cards) {
    card.hidden = !wanted.every(([key, value]) => card.dataset[key] === value);
    shown += card.hidden ? 0 : 1;
  }
  form.querySelector("output").textContent = `${shown} of ${cards.length} posts`;
};
form.hidden = false;
form.addEventListener("input", show);
form.addEventListener("reset", () => setTimeout(show));
show();
