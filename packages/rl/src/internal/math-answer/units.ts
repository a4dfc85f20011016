/** What a unit measures, and its size in the base unit. */
interface Unit {
  readonly kind: string
  readonly size: number
}

const groups: Readonly<Record<string, Readonly<Record<string, number>>>> = {
  length: {
    nm: 1e-9,
    mm: 1e-3,
    cm: 1e-2,
    dm: 0.1,
    m: 1,
    km: 1e3,
    in: 0.0254,
    inch: 0.0254,
    ft: 0.3048,
    foot: 0.3048,
    feet: 0.3048,
    yd: 0.9144,
    yard: 0.9144,
    mi: 1609.344,
    mile: 1609.344,
    meter: 1,
    metre: 1,
    centimeter: 1e-2,
    millimeter: 1e-3,
    kilometer: 1e3,
  },
  mass: {
    mg: 1e-6,
    g: 1e-3,
    kg: 1,
    t: 1e3,
    oz: 0.028349523125,
    lb: 0.45359237,
    gram: 1e-3,
    kilogram: 1,
    pound: 0.45359237,
  },
  time: {
    ms: 1e-3,
    s: 1,
    sec: 1,
    second: 1,
    min: 60,
    minute: 60,
    h: 3600,
    hr: 3600,
    hour: 3600,
    day: 86400,
    week: 604800,
  },
  volume: { ml: 1e-3, mL: 1e-3, cl: 1e-2, l: 1, L: 1, liter: 1, litre: 1 },
  money: { cent: 0.01, dollar: 1 },
  angle: { deg: 1, degree: 1 },
}

const table = new Map<string, Unit>(
  Object.entries(groups).flatMap(([kind, units]) =>
    Object.entries(units).map(([name, size]): [string, Unit] => [name, { kind, size }]),
  ),
)

/** A known unit by its name, singular or plural. */
export const unitOf = (name: string): Unit | undefined =>
  table.get(name) ??
  table.get(name.toLowerCase()) ??
  (name.length > 2
    ? (table.get(name.toLowerCase().replace(/e?s$/, "")) ?? table.get(name.toLowerCase().replace(/s$/, "")))
    : undefined)
