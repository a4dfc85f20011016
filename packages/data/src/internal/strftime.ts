const months = "January February March April May June July August September October November December".split(" ")
const days = "Sunday Monday Tuesday Wednesday Thursday Friday Saturday".split(" ")

const pad = (n: number, width = 2): string => String(n).padStart(width, "0")

/**
 * Formats a date as C's `strftime` does in the C locale, reading the date's UTC fields so that a pinned date prints the same everywhere.
 * Codes that chat templates use: %Y %y %m %d %e %j %b %B %a %A %H %I %M %S %p %F %T %Z %%; others stay as they are written.
 */
export const strftime = (date: Date, format: string): string =>
  format.replace(/%(-?)([A-Za-z%])/g, (whole, dash: string, letter: string) => {
    const number = (n: number, width = 2): string => (dash === "-" ? String(n) : pad(n, width))
    const hours = date.getUTCHours()
    const month = months[date.getUTCMonth()] as string
    const day = days[date.getUTCDay()] as string
    const startOfYear = Date.UTC(date.getUTCFullYear(), 0, 1)
    switch (letter) {
      case "Y":
        return String(date.getUTCFullYear())
      case "y":
        return number(date.getUTCFullYear() % 100)
      case "m":
        return number(date.getUTCMonth() + 1)
      case "d":
        return number(date.getUTCDate())
      case "e":
        return String(date.getUTCDate()).padStart(2, " ")
      case "j":
        return number(Math.floor((date.getTime() - startOfYear) / 86_400_000) + 1, 3)
      case "b":
        return month.slice(0, 3)
      case "B":
        return month
      case "a":
        return day.slice(0, 3)
      case "A":
        return day
      case "H":
        return number(hours)
      case "I":
        return number(hours % 12 || 12)
      case "M":
        return number(date.getUTCMinutes())
      case "S":
        return number(date.getUTCSeconds())
      case "p":
        return hours < 12 ? "AM" : "PM"
      case "F":
        return strftime(date, "%Y-%m-%d")
      case "T":
        return strftime(date, "%H:%M:%S")
      case "Z":
        return "UTC"
      case "%":
        return "%"
      default:
        return whole
    }
  })
