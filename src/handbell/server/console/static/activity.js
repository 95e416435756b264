// The hours of the chart and of its table, in the reader's own zone.

const hour = new Intl.DateTimeFormat(undefined, { hour: "numeric" });

function localHours() {
  for (const label of document.querySelectorAll('[data-axis="day"]')) {
    label.textContent = hour.format(new Date(label.dateTime));
  }
  for (const title of document.querySelectorAll("title[data-from]")) {
    const { from, told } = title.dataset;
    title.textContent = `${hour.format(new Date(from))}: ${told}`;
  }
  document.querySelector("[data-axis-zone]")?.remove();
}

document.addEventListener("handbell:shown", localHours);
localHours();
