/** The inspector's tabs: click, or arrow keys, Home and End. */

import { byId } from "./dom.js";

export function setUpTabs() {
  const tabs = [...document.querySelectorAll("[role=tab]")];
  const moves = { ArrowRight: 1, ArrowLeft: -1, Home: -tabs.length, End: tabs.length };
  const choose = (chosen) => {
    for (const tab of tabs) {
      const isChosen = tab === chosen;
      tab.setAttribute("aria-selected", String(isChosen));
      tab.tabIndex = isChosen ? 0 : -1;
      byId(tab.getAttribute("aria-controls")).hidden = !isChosen;
    }
  };
  tabs.forEach((tab, index) => {
    tab.addEventListener("click", () => choose(tab));
    tab.addEventListener("keydown", (event) => {
      if (!(event.key in moves)) return;
      event.preventDefault();
      const place = index + moves[event.key];
      const isStep = Math.abs(moves[event.key]) === 1;
      const next = isStep ? (place + tabs.length) % tabs.length : Math.min(Math.max(place, 0), tabs.length - 1);
      choose(tabs[next]);
      tabs[next].focus();
    });
  });
}
