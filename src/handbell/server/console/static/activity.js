// The labels below the chart, in the reader's own zone.

const hour = new Intl.DateTimeFormat(undefined, { hour: "numeric" });

for (const label of document.querySelectorAll('[data-axis="day"]')) {
  label.textContent = hour.format(new Date(label.dateTime));
}
