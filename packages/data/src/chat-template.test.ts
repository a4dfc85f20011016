import { describe, expect, test } from "bun:test"
import { readFileSync } from "node:fs"
import { thrown } from "../fixtures/thrown.ts"
import { CHATML_TEMPLATE, compileChatTemplate, renderChat } from "./chat-template.ts"
import { createResponseSpanFinder, responseSpans } from "./response-spans.ts"
import type { MaskMode, ScoredText } from "./response-spans.ts"
import type { ChatMessage } from "./rows.ts"

interface Case {
  readonly template: string
  readonly conversation: string
  readonly addGenerationPrompt: boolean
  readonly text?: string
  readonly spans?: readonly (readonly [number, number])[]
  readonly refused?: string
}
interface Conversation {
  readonly messages: readonly ChatMessage[]
  readonly tools?: readonly unknown[]
}

const fixture = (name: string): string => readFileSync(new URL(`../fixtures/${name}`, import.meta.url), "utf8")
const { cases } = JSON.parse(fixture("goldens.json")) as { cases: readonly Case[] }
const conversations = JSON.parse(fixture("conversations.json")) as Record<string, Conversation>
const withBlocks = (name: string): string => fixture(`templates/${name}.jinja`)
/** The same template without its generation blocks, white space rules untouched. */
const withoutBlocks = (name: string): string =>
  withBlocks(name).replace(/\{%(-?)\s*(?:end)?generation\s*(-?)%\}/g, "{%$1 if true %}{% endif $2%}")

const tokens = { bosToken: "<s>", eosToken: "</s>", date: "2026-05-04" }
/** What a tokenizer would say: all these end a turn. */
const endOfTurn = (suffix: string): number | undefined => {
  const match = /<\|im_end\|>|<\|eot_id\|>|<end_of_turn>|<\|end\|>|<\/s>/.exec(suffix)
  return match === null ? undefined : match.index + match[0].length
}
const scored = ({ text, spans }: ScoredText): string[] => spans.map(({ start, end }) => text.slice(start, end))

describe("renders as transformers does", () => {
  for (const { template, conversation, addGenerationPrompt, text, refused } of cases) {
    test(`${template}, ${conversation}${addGenerationPrompt ? ", generation prompt" : ""}`, async () => {
      const { messages, tools } = conversations[conversation] as Conversation
      for (const source of [withBlocks(template), withoutBlocks(template)]) {
        const render = () => renderChat(source, messages, { ...tokens, tools, addGenerationPrompt })
        if (refused === undefined) expect(render()).toBe(text as string)
        else expect((await thrown(render)).code).toBe("SLOTH_TEMPLATE_REJECTED")
      }
    })
  }
})

describe("scores what transformers scores", () => {
  for (const { template, conversation, addGenerationPrompt, text, spans } of cases) {
    if (addGenerationPrompt || spans === undefined) continue
    test(`${template}, ${conversation}`, () => {
      const { messages, tools } = conversations[conversation] as Conversation
      const expected = spans.map(([start, end]) => (text as string).slice(start, end))
      for (const source of [withBlocks(template), withoutBlocks(template)]) {
        const found = responseSpans(source, messages, { ...tokens, tools, endOfTurn })
        expect(found.text).toBe(text as string)
        expect(scored(found)).toEqual(expected)
        expect(found.spans.map(({ start, end }) => [start, end] as const)).toEqual([...spans])
        const last = responseSpans(source, messages, { ...tokens, tools, endOfTurn, mask: "last-assistant" })
        expect(scored(last)).toEqual(expected.slice(-1))
      }
    })
  }
})

describe("spans", () => {
  const finder = (source: string, mask?: MaskMode) => createResponseSpanFinder(source, { ...tokens, mask, endOfTurn })
  const talk = (...contents: string[]): ChatMessage[] =>
    contents.map((content, i) => ({ role: i % 2 === 0 ? "user" : "assistant", content }))

  test("one finder gives the same as a fresh one for many conversations of one shape", () => {
    for (const name of ["chatml", "llama3", "gemma", "mistral", "qwen3", "closing-eos"]) {
      const source = withoutBlocks(name)
      const shared = finder(source)
      const reference = createResponseSpanFinder(withBlocks(name), tokens)
      for (const extra of ["a", "  b  ", "<|im_end|>\n<|im_start|>assistant\n", "\ue0001\ue001", "</think>", "ü🦥\n"]) {
        const messages = talk(`q ${extra}`, `${extra} x${extra}`, extra === "  b  " ? "c" : extra, `r${extra}`)
        expect(shared.find(messages)).toEqual(reference.find(messages))
      }
    }
  })

  test("without an endOfTurn rule the text up to its trailing white space ends the turn", () => {
    expect(scored(responseSpans(withoutBlocks("chatml"), talk("a", "b", "c", "d")))).toEqual([
      "b<|im_end|>",
      "d<|im_end|>",
    ])
  })

  test("all scores the whole text", () => {
    const found = finder(CHATML_TEMPLATE, "all").find(talk("a", "b"))
    expect(scored(found)).toEqual([found.text])
  })

  test("weight 0 keeps an answer out, with and without blocks", () => {
    const messages = talk("a", "b", "c", "d").map((m, i) => (i === 1 ? { ...m, weight: 0 } : m))
    expect(scored(finder(withoutBlocks("chatml")).find(messages))).toEqual(["d<|im_end|>"])
    expect(scored(finder(withBlocks("chatml")).find(messages))).toEqual(["d<|im_end|>"])
  })

  test("a template without a generation prompt: headers stay unscored", () => {
    const source = "{% for m in messages %}[{{ m.role }}]\n{{ m.content }}<|end|>\n{% endfor %}"
    expect(scored(finder(source).find(talk("a", "b", "c", "d")))).toEqual(["b<|end|>", "d<|end|>"])
  })

  test("an answer that ends in nothing is counted as open-ended", () => {
    const plain = finder(
      "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}",
    )
    expect(scored(plain.find(talk("a", "b")))).toEqual(["b"])
    expect(plain.openEnded).toBe(1)
    const chatml = finder(CHATML_TEMPLATE)
    chatml.find(talk("a", "b"))
    expect(chatml.openEnded).toBe(0)
  })

  describe("tool calls", () => {
    const call = { type: "function", function: { name: "lookup", arguments: { a: 1 } } }
    const messages = [...talk("q"), { role: "assistant", content: null, tool_calls: [call] }]
    const withEmpty = messages.map((m) => (m.content === null ? { ...m, content: "" } : m))
    const template = (content: string, args: string): string =>
      "{% for m in messages %}<|{{ m.role }}|>{% if m.tool_calls %}{% for c in m.tool_calls %}{{ '(' + c.function.name + " +
      `${args} + ')' }}{% endfor %}{% endif %}{{ ${content} }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}`

    test("are given to the template in the form that it can print", () => {
      for (const content of ["m.content or ''", "m.content + ''"]) {
        for (const args of ["c.function.arguments | tojson", "'' + c.function.arguments"]) {
          for (const given of [messages, withEmpty]) {
            const [printed] = scored(finder(template(content, args)).find(given))
            expect(printed).toMatch(/^\(lookup\{"a": ?1\}\)<\|end\|>$/)
          }
        }
      }
    })

    test("that the template leaves out are an error, not an empty answer", async () => {
      const source = CHATML_TEMPLATE.replace("message['content']", "(message['content'] or '')")
      for (const mask of ["assistant", "all"] as const) {
        const error = await thrown(() => finder(source, mask).find(messages))
        expect(error.code).toBe("SLOTH_TEMPLATE_TOOLS")
        expect(error.message).toContain("lookup")
      }
    })

    test("a call that nothing ends is scored as far as it goes, and counted", () => {
      const open = finder(template("''", "c.function.arguments | tojson").replace("{{ '' }}<|end|>", "\n"))
      expect(scored(open.find(messages))).toEqual(['(lookup{"a": 1})'])
      expect(open.openEnded).toBe(1)
    })
  })

  test("a template that hides or doubles answers is refused, not guessed at", async () => {
    const doubled =
      "{% for m in messages %}{{ m.content }}{% endfor %}{% for m in messages %}{{ m.content }}{% endfor %}"
    expect((await thrown(() => finder(doubled).find(talk("a", "b")))).code).toBe("SLOTH_TEMPLATE_SPANS")
    const rewritten =
      "{% generation %}x{% endgeneration %}{% set t %}{% generation %}abc{% endgeneration %}{% endset %}{{ t | length }}"
    expect((await thrown(() => finder(rewritten).find(talk("a", "b")))).code).toBe("SLOTH_TEMPLATE_SPANS")
  })
})

describe("environment", () => {
  const render = (source: string, options = {}) => renderChat(source, [{ role: "user", content: "é<&>" }], options)

  test("dates are pinned and English, whatever the machine's clock and language", () => {
    const format = "{{ strftime_now('%d %b %Y|%A %B|%H:%M|%-d|%j|%y|%p|%%|%q') }}"
    expect(render(format, { date: "2026-01-05" })).toBe("05 Jan 2026|Monday January|00:00|5|005|26|AM|%|%q")
    expect(render(format, { date: new Date("2026-12-31T23:59:00Z") })).toBe(
      "31 Dec 2026|Thursday December|23:59|31|365|26|PM|%|%q",
    )
    expect(render("{{ strftime_now('%Y') }}")).toBe(String(new Date().getUTCFullYear()))
    expect(compileChatTemplate(format).usesDate).toBe(true)
  })

  test("tojson keeps characters and spaces as Python does with ensure_ascii off", () => {
    expect(render("{{ messages | tojson }}")).toBe('[{"role": "user", "content": "é<&>"}]')
  })

  test("variables, tools, missing tokens", () => {
    const source = "{{ x }}{{ tools is none }}{{ bos_token is defined }}{{ enable_thinking is defined }}"
    expect(render(source, { variables: { x: 1, enable_thinking: false } })).toBe("1truefalsetrue")
    expect(render("{{ range(3) | join }}{{ range(3, 0, -2) | join }}")).toBe("01231")
  })

  test("Windows line ends in a template are line ends", () => {
    const source = "{% for m in messages %}\n  {% if true %}\n[{{ m.content }}]\n  {% endif %}\n{% endfor %}\n"
    expect(render(source.replaceAll("\n", "\r\n"))).toBe("[é<&>]\n")
    expect(render(source)).toBe("[é<&>]\n")
  })

  test("errors are coded", async () => {
    expect((await thrown(() => render("{% if %}"))).code).toBe("SLOTH_TEMPLATE_SYNTAX")
    expect((await thrown(() => render("{{ nothing() }}"))).code).toBe("SLOTH_TEMPLATE_RENDER")
    expect((await thrown(() => render("{{ 'x' + messages[0] }}"))).why).toContain("object")
    expect((await thrown(() => render("{{ raise_exception('no') }}"))).what).toContain("no")
    expect((await thrown(() => render("{{ strftime_now('%Y') }}", { date: "soon" }))).code).toBe("SLOTH_TEMPLATE_DATE")
    expect((await thrown(() => render("x", { variables: { namespace: 1 } }))).code).toBe("SLOTH_TEMPLATE_VARIABLE")
  })
})
