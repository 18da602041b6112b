"use strict";
(() => {
  const cards = [...document.querySelectorAll(".card")];
  const form = document.querySelector(".filter");
  const search = form.querySelector("[type=search]");
  const order = form.querySelector("select");
  const status = document.querySelector("[role=status]");
  const texts = new Map(cards.map((card) => [card, card.textContent.toLowerCase()]));

  // Filter, search and order. A card matches if it contains every word of the search, in any order.
  const show = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const state = form.elements.state.value;
    let shown = 0;
    for (const card of cards) {
      const text = texts.get(card);
      const fits = (!state || card.dataset.state === state) && words.every((word) => text.includes(word));
      card.hidden = !fits;
      shown += fits;
    }
    const count = (number) => number.toLocaleString("en");
    status.textContent = shown === cards.length ? `All ${count(shown)} shown.` : `${count(shown)} of ${count(cards.length)} shown.`;
  };
  const sort = () => {
    const seconds = (card) => Number(card.dataset.seconds ?? -1);
    const sorted = order.value === "slowest" ? [...cards].sort((a, b) => seconds(b) - seconds(a)) : cards;
    document.querySelector(".cards").append(...sorted);
  };
  const reveal = () => {
    const card = document.getElementById(location.hash.slice(1));
    if (!card?.matches(".card[hidden]")) return;
    search.value = "";
    form.elements.state.value = "";
    show();
    card.scrollIntoView();
    card.focus();
  };
  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", show);
  order.addEventListener("change", sort);
  addEventListener("hashchange", reveal);
  show();

  // A link becomes a player near the view; a player that was not used becomes a link again far from the view.
  const swap = (old, fresh) => {
    const hadFocus = document.activeElement === old;
    old.replaceWith(fresh);
    if (hadFocus) fresh.focus({ preventScroll: true });
  };
  const playerOf = (link) => {
    const video = document.createElement("video");
    video.className = "screen";
    video.controls = video.playsInline = true;
    video.setAttribute("aria-labelledby", link.closest(".card").querySelector("h3").id);
    if (link.dataset.poster) video.poster = link.dataset.poster;
    video.preload = link.dataset.poster ? "none" : "metadata";
    video.src = link.getAttribute("href");
    links.set(video, link);
    return video;
  };
  const links = new WeakMap();
  const near = new IntersectionObserver(
    (entries) => {
      for (const { target: card, isIntersecting } of entries) {
        const screen = card.querySelector(".screen");
        if (isIntersecting && screen.matches("a")) swap(screen, playerOf(screen));
        else if (!isIntersecting && screen.matches("video") && screen.paused && screen.currentTime === 0) {
          swap(screen, links.get(screen));
        }
      }
    },
    { rootMargin: "400px" },
  );
  for (const card of cards) if (card.querySelector("a.screen")) near.observe(card);

  // Describe the job under the pointer; a click goes to its video.
  const picture = document.querySelector(".rows");
  if (!picture) return;
  const { pitch, padding, began, ended } = Object.fromEntries(
    Object.entries(picture.dataset).map(([name, value]) => [name, Number(value)]),
  );
  const lanes = new Map();
  for (const card of cards) {
    if (!card.dataset.bar) continue;
    const [lane, from, to] = card.dataset.bar.split(" ").map(Number);
    if (!lanes.has(lane)) lanes.set(lane, []);
    lanes.get(lane).push({ card, from, to });
  }
  const cardAt = (event) => {
    const box = picture.getBoundingClientRect();
    const at = began + ((event.clientX - box.left) / box.width) * (ended - began);
    const slack = ((ended - began) * 3) / box.width;
    const lane = Math.floor((event.clientY - box.top - padding) / pitch);
    return lanes.get(lane)?.find(({ from, to }) => from - slack <= at && at <= to + slack)?.card;
  };
  const pointed = document.querySelector(".pointed");
  picture.addEventListener("pointermove", (event) => {
    const card = cardAt(event);
    picture.classList.toggle("can-point", Boolean(card));
    const parts = card ? ["h3", ".times p", ".prompt"].map((part) => card.querySelector(part).textContent.trim()) : [];
    pointed.textContent = parts.join(" · ");
  });
  picture.addEventListener("pointerleave", () => (pointed.textContent = ""));
  picture.addEventListener("click", (event) => {
    const card = cardAt(event);
    if (card) location.hash = card.id;
  });
})();
