const pairs: readonly (readonly [question: string, answer: string])[] = [
  [
    "When are you open?",
    "We are open from Tuesday to Sunday, 10 to 18 o'clock. On Thursdays we stay open until 21 o'clock.",
  ],
  ["What does a ticket cost?", "A ticket costs 12 euros. Children under 12 come in free."],
  ["Is there a reduced price for students?", "Yes. Students pay 6 euros with a valid card."],
  [
    "Can I bring my dog?",
    "Guide dogs are welcome. Other dogs cannot come in, but there is shade and water at the gate.",
  ],
  ["Where can I park?", "The car park is behind the east gate. It costs 2 euros a day."],
  ["Which bus goes to the garden?", "Bus 7 stops at the main gate every 15 minutes."],
  ["Do you have a café?", "Yes, the café is in the palm house. It serves soup, cake and coffee."],
  ["May I take photos?", "Yes, for yourself. Please use no flash in the butterfly house."],
  ["When do the roses bloom?", "The roses bloom from June to September. July is the best month."],
  ["Is the garden open on Monday?", "No. On Mondays the garden rests."],
  ["Are there guided tours?", "Yes, at 11 and at 15 o'clock, from the fountain. They are free and take 50 minutes."],
  [
    "Can I use a wheelchair everywhere?",
    "All paths are flat except the rock garden. Wheelchairs can be borrowed at the gate.",
  ],
  ["Can I buy plants?", "Yes, the shop sells seeds and small plants that the gardeners raised."],
  ["Where are the toilets?", "Next to the café and at the west gate."],
  ["Can we have a picnic?", "Yes, on the meadow by the lake. Please take your rubbish with you."],
  ["What is in the palm house?", "Palms, orchids and a small pond with turtles. It is warm there all year."],
]

/** A small data set for a first run of one's own: a botanical garden that answers its visitors, as lines of JSON. */
export const sampleData = (): string =>
  pairs
    .map(([question, answer]) =>
      JSON.stringify({
        messages: [
          { role: "user", content: question },
          { role: "assistant", content: answer },
        ],
      }),
    )
    .map((line) => `${line}\n`)
    .join("")
