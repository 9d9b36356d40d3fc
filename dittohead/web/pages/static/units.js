// Sizes for people, as units.py writes them.

const SIZES = ["", "KiB", "MiB", "GiB", "TiB", "PiB"];

function even(value) {
  const low = Math.floor(value);
  return value - low === 0.5 ? low + (low % 2) : Math.round(value);
}

export function size(count) {
  let power = 0;
  while (count >= 1024 && power < SIZES.length - 1) [count, power] = [count / 1024, power + 1];
  if (!power) return `${Math.floor(count).toLocaleString("en")} ${Math.floor(count) === 1 ? "byte" : "bytes"}`;
  const shown = count >= 100 ? even(count).toLocaleString("en") : (even(10 * count) / 10).toFixed(1);
  return `${shown} ${SIZES[power]}`;
}
