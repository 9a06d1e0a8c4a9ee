# ruff: noqa: SIM905  (a split string is the readable form of a word list)
"""The text the tiny model is trained on, made from nothing but this file.

Two kinds of document come out of one seeded random generator:

* short stories, filled into sentence templates;
* chats: letter games on words (copy, reverse, spell, ...), small facts, questions about a sentence,
  small talk.

Letter games draw their words from the lists below and from pseudo-words built of syllables. One word in ten
is held out (:func:`is_held_out`) and never appears in a training game, so that :mod:`pretrain_tiny` can
count answers on unseen words.

The text leaves out one rule on purpose: moving the leading consonants of a word to its end and adding a
suffix. That game is what the examples teach by fine-tuning, so the model must not know it. Its parts
(rotating by one letter, adding a given ending, finding the first vowel) are in; endings in "ay" are not.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterator

Chat = list[tuple[str, str]]  # (role, text) with role in "system", "user", "assistant"
Game = Callable[[str], str]

VOWELS = "aeiou"

# --- word lists ---------------------------------------------------------------------------------------------

ANIMALS = """
ant badger bat bear beaver bee bird bull cat chick cow crab crow deer dog donkey dove duck eagle eel
elephant fish flea fly fox frog goat goose hare hawk hen horse kitten lamb lion lizard monkey moth mouse
mule owl ox panda parrot penguin pig pony puppy rabbit rat raven robin seal shark sheep slug snail snake
spider squirrel swan tiger toad trout turkey turtle whale wolf worm zebra
""".split()
FOODS = """
apple bacon banana bean beet berry biscuit bread broth butter cabbage cake candy carrot cheese cherry
cream egg fig flour fruit garlic grape ham honey jam juice lemon lime melon milk mint mushroom noodle nut
oat olive onion orange peach pear pepper pie plum potato pudding pumpkin radish rice salad salt sauce soup
spice stew sugar syrup tea toast tomato waffle walnut water wheat yogurt
""".split()
THINGS = """
anchor arrow axe bag ball balloon basket bed bell belt bench blanket boat book boot bottle bowl box brick
bridge broom brush bucket button cage camera candle cap card carpet cart chain chair chest clock cloth
coat coin comb crown cup curtain desk dish doll door dress drum envelope fan feather fence flag flute fork
frame gate glass glove guitar hammer hat helmet hook horn jar jug kettle key kite knife ladder lamp
lantern leaf letter lock map mask mat mirror mug nail needle net oven paddle page paint pan paper pen
pencil piano picture pillow pin pipe plate pocket pot purse puzzle quilt raft ring robe roof rope rug sack
saddle scarf shelf shell shield ship shirt shoe shovel sled sock spoon spade stick stone string sword
table tent ticket torch towel toy trumpet trunk umbrella vase violin wagon wallet watch wheel whistle
window wire yarn zipper
""".split()
PLACES = """
attic barn bay beach camp castle cave cellar church city cliff coast corner desert farm field forest fort
garden harbor hill hotel house hut inn island kitchen lake library market meadow mill mountain museum
office orchard palace park path pond port prison river road room school shop shore square stable station
stream street temple theater tower town valley village wall well wood yard zoo
""".split()
ADJECTIVES = """
able angry bitter blind bold brave brief bright broad busy calm careful cheap clean clever cold cool crisp
cruel curious damp dark deep dirty dry dull eager early easy empty fair faint false famous fancy fast fat
fine firm flat fresh friendly full funny gentle glad good grand great happy hard harsh heavy high hollow
honest hot huge humble hungry icy ill jolly keen kind large late lazy light little lonely long loose loud
lovely low loyal lucky mad mild modern narrow neat new nice noisy odd old open pale plain polite poor
pretty proud pure quick quiet rare raw ready rich ripe rough round rude sad safe salty sharp short shy
silent silly simple sleepy slim slow small smart smooth soft sore sour steep stiff still strange strong
sturdy sweet swift tall tame tender thick thin tidy tiny tired tough true ugly upset useful vast warm weak
wealthy wet wide wild wise young
""".split()
VERBS = """
accept act add agree allow answer appear argue arrive ask bake beg begin blow boil borrow break bring
build burn buy call carry catch chase choose clap climb close collect cook count cover cry dance decide
dig draw dream drink drive drop earn eat enjoy enter explain fail fall feed feel fight fill find finish
fix float follow forget forgive give glow grab greet grow guard guess hang hear help hide hit hold hope
hunt hurry imagine invite join joke juggle jump keep kick kneel knit knock know laugh lead lean learn
leave lend lift listen live look lose love make march measure meet melt mend miss mix move need notice
obey offer order own pack pass pay pick plan plant play point pour pray press pretend promise pull push
put rain reach read rest return ride rise roll row run save search sell send shake share shine shout show
shut sing sit skip sleep slide smell smile sneeze solve speak spend spin splash stand stay steal stir stop
stretch study swim swing take talk taste teach tell thank think throw tie touch trade travel trust try
turn use visit wait wake walk want warn wash wave wear weep whisper win wipe wish wonder work write yawn
yell
""".split()
OTHERS = """
about above across after again air almost alone also always among answer anger animal arm army art aunt
autumn baby back beauty birth blood body bone boy brain branch breath brother business care cause chance
change child cloud color comfort country cousin crowd danger dawn death doubt dust ear earth edge end
energy evening event example eye face fact family father fear finger fire floor flower fog foot force
friend frost future game ghost giant gift girl gold grass ground group hair hand head health heart heat
hero history hole home hope hour ice idea ink iron job joy king knee knight knowledge language law leather
leg lesson lip luck machine magic man meal memory metal mind minute mist moment money month mood moon
morning mother mouth music name nation neck neighbor never news night noise north nose nothing number oil
once opinion other outside pain pair parent part party past peace people person plant pleasure power price
pride prince problem queen question rain rainbow reason rule sand scene science sea season second secret
shade shadow shape sign silence silver sister size skill skin sky sleep smoke snow soil soldier son song
sound south space speech spirit spot spring star steam steel step storm story stranger strength summer sun
surface sweat system tail tale task taste teacher team tear thing thought throat thumb thunder time tooth
top trade tree trick trip trouble truth twin uncle under until value view visitor voice war wave way
weather week weight west wind wing winter wisdom woman wonder word world year yesterday youth
""".split()
NAMES = """
Ada Amy Anna Ben Bob Carl Clara Dan Dora Ed Ella Emma Eric Eva Fay Finn Fred Gina Grace Hal Hanna Hugo Ida
Ivan Ivy Jack Jane Jill Joe Kate Ken Kim Lea Leo Lily Lucy Max Mia Mike Nell Nick Nina Nora Olga Oscar
Otto Pam Paul Peter Rita Rob Rosa Ruth Sam Sara Sue Ted Tess Tim Tom Uma Vera Vic Wendy Will Zoe
""".split()
COLORS = "red blue green yellow black white brown pink gray purple orange".split()

NUMBERS = "zero one two three four five six seven eight nine ten eleven twelve".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()
SOUNDS = {
    "cow": "moo", "dog": "woof", "cat": "meow", "duck": "quack", "pig": "oink", "sheep": "baa",
    "lion": "roar", "bee": "buzz", "owl": "hoot", "snake": "hiss", "mouse": "squeak", "frog": "croak",
    "wolf": "howl", "crow": "caw", "horse": "neigh", "hen": "cluck", "dove": "coo", "chick": "cheep",
}  # fmt: skip
COLOR_OF = {
    "grass": "green", "snow": "white", "the sky": "blue", "a banana": "yellow", "a tomato": "red",
    "coal": "black", "a carrot": "orange", "milk": "white", "a lemon": "yellow", "blood": "red",
    "a leaf": "green", "a crow": "black", "a plum": "purple", "an elephant": "gray", "a pig": "pink",
    "chocolate": "brown",
}  # fmt: skip
CAPITALS = {
    "France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Japan": "Tokyo", "Egypt": "Cairo",
    "Greece": "Athens", "Norway": "Oslo", "Peru": "Lima", "Cuba": "Havana", "Austria": "Vienna",
    "Kenya": "Nairobi", "Ireland": "Dublin", "Germany": "Berlin", "Portugal": "Lisbon", "Poland": "Warsaw",
    "China": "Beijing",
}  # fmt: skip
OPPOSITES = {
    "hot": "cold", "big": "small", "up": "down", "wet": "dry", "day": "night", "old": "new", "fast": "slow",
    "happy": "sad", "high": "low", "hard": "soft", "good": "bad", "open": "closed", "full": "empty",
    "rich": "poor", "loud": "quiet", "light": "dark", "left": "right", "thick": "thin", "early": "late",
    "strong": "weak",
}  # fmt: skip
SMALL_TALK = {
    "hello": "hello! how can i help?", "hi": "hi! what shall we do?",
    "good morning": "good morning to you!", "good night": "good night, sleep well!",
    "how are you?": "i am fine, thank you.", "thank you": "you are welcome.", "thanks": "you are welcome.",
    "goodbye": "goodbye!", "bye": "bye!", "who are you?": "i am a tiny language model.",
    "what is your name?": "my name is tiny.",
    "what can you do?": "i can play with words and tell short stories.",
    "are you big?": "no, i am very small.", "are you a human?": "no, i am a small program.",
    "do you like music?": "yes, i like songs.",
    "tell me a joke": "why did the hen cross the road? to reach the other side.",
    "what is the sun?": "the sun is a star.", "what is a bird?": "a bird is an animal that can fly.",
    "what is a book?": "a book is a thing you read.", "what is water?": "water is something you drink.",
    "what is a pilot?": "a pilot flies a plane.", "what is a baker?": "a baker makes bread.",
    "what is snow?": "snow is frozen water.", "what is a shoe?": "a shoe is a thing you wear.",
}  # fmt: skip
IRREGULAR = {"leaf": "leaves", "shelf": "shelves", "knife": "knives", "scarf": "scarves"}
KINDS = {"animal": ANIMALS, "food": FOODS, "place": PLACES, "color": COLORS, "name": NAMES}

GAME_WORDS = sorted({*ANIMALS, *FOODS, *THINGS, *PLACES, *ADJECTIVES, *VERBS, *OTHERS})
ONSETS = (
    "b c d f g h j k l m n p r s t v w z b c d f g h l m n p r s t w y "
    "bl br ch cl cr dr fl fr gl gr kn pl pr sc sh sk sl sm sn sp st str sw th tr tw wh"
).split() + [""] * 8
NUCLEI = "a e i o u a e i o u a e i o u ai ea ee oa oo ou".split()
CODAS = "b ck d ft g l ll lt m mp n nd ng nk nt p r rd rk rm rn rt s sh sk ss st t th x z".split() + [""] * 18


def pseudo_word(rng: random.Random) -> str:
    """One to three random syllables, 3 to 9 letters."""
    while True:
        count = rng.choices((1, 2, 3), (3, 5, 2))[0]
        word = "".join(rng.choice(ONSETS) + rng.choice(NUCLEI) + rng.choice(CODAS) for _ in range(count))
        if 3 <= len(word) <= 9:
            return word


def is_held_out(word: str) -> bool:
    """True for the tenth of all words that never appears in a training game."""
    return zlib.crc32(word.encode()) % 10 == 0


def game_word(rng: random.Random, held_out: bool = False) -> str:
    """A word to play with: two in five from the lists, the others pseudo-words."""
    while True:
        word = rng.choice(GAME_WORDS) if rng.random() < 0.4 else pseudo_word(rng)
        if is_held_out(word) == held_out:
            return word


# --- letter games -------------------------------------------------------------------------------------------


def from_first_vowel(word: str) -> str:
    """The word without its leading consonants; the whole word if it has no vowel."""
    start = next((i for i, letter in enumerate(word) if letter in VOWELS), 0)
    return word[start:]


def first_vowel(word: str) -> str:
    """The first of a, e, i, o, u in the word, or "none"."""
    return next((letter for letter in word if letter in VOWELS), "none")


# game -> (weight, prompts with {} for the word, rule)
GAMES: dict[str, tuple[int, tuple[str, ...], Game]] = {
    "copy": (5, ("say: {}", "copy: {}", "repeat: {}", "say the word {}"), lambda w: w),
    "reverse": (5, ("reverse: {}", "backwards: {}", "say {} backwards"), lambda w: w[::-1]),
    "shout": (4, ("shout: {}", "upper: {}", "shout the word {}"), str.upper),
    "spell": (4, ("spell: {}", "spell the word {}", "how do you spell {}?"), "-".join),
    "first": (2, ("first letter: {}", "what is the first letter of {}?"), lambda w: w[0]),
    "last": (2, ("last letter: {}", "what is the last letter of {}?"), lambda w: w[-1]),
    "count": (3, ("count: {}", "how many letters are in {}?", "length of {}?"), lambda w: str(len(w))),
    "rotate": (
        5,
        ("rotate: {}", "first to last: {}", "move the first letter of {} to the end"),
        lambda w: w[1:] + w[0],
    ),
    "rotate2": (
        3,
        ("rotate two: {}", "move the first two letters of {} to the end"),
        lambda w: w[2:] + w[:2],
    ),
    "unrotate": (2, ("rotate back: {}", "move the last letter of {} to the front"), lambda w: w[-1] + w[:-1]),
    "behead": (3, ("drop first: {}", "drop the first letter of {}"), lambda w: w[1:]),
    "curtail": (2, ("drop last: {}", "drop the last letter of {}"), lambda w: w[:-1]),
    "vowel": (2, ("first vowel: {}", "what is the first vowel of {}?"), first_vowel),
    "start": (
        3,
        ("starts with a vowel: {}", "does {} start with a vowel?"),
        lambda w: "yes" if w[0] in VOWELS else "no",
    ),
    "tail": (3, ("from the vowel: {}", "say {} from its first vowel"), from_first_vowel),
    "title": (2, ("title: {}", "write {} with a big first letter"), str.title),
    "double": (2, ("twice: {}", "say {} two times"), lambda w: f"{w} {w}"),
}


def affix(rng: random.Random) -> str:
    """A short ending or beginning; never one in "ay"."""
    while True:
        text = (
            rng.choice(("ing", "er", "ed", "ly", "ness", "ful", "un", "re", "ish", "oo", "est", ""))
            or pseudo_word(rng)[:4]
        )
        if not text.endswith("ay"):
            return text


def affix_game(rng: random.Random, word: str) -> tuple[str, str]:
    """Add a given ending or beginning to a word."""
    extra = affix(rng)
    if rng.random() < 0.65:
        prompt = rng.choice(("add {1}: {0}", "add {1} to the end of {0}", "append {1}: {0}"))
        return prompt.format(word, extra), word + extra
    return rng.choice(("before {1}: {0}", "put {1} before {0}")).format(word, extra), extra + word


def letter_game(rng: random.Random, name: str | None = None, held_out: bool = False) -> tuple[str, str]:
    """A prompt and its right answer; the game drawn by weight unless named."""
    word = game_word(rng, held_out)
    chosen = name or rng.choices([*GAMES, "affix"], [weight for weight, _, _ in GAMES.values()] + [8])[0]
    if chosen == "affix":
        return affix_game(rng, word)
    _, prompts, rule = GAMES[chosen]
    prompt = rng.choices(prompts, [3] + [1] * (len(prompts) - 1))[0]
    return prompt.format(word), rule(word)


def list_game(rng: random.Random, name: str | None = None) -> tuple[str, str]:
    """Copy, reverse or freely rearrange three digits or colors; the game drawn unless named."""
    items = rng.sample([str(n) for n in range(10)] if rng.random() < 0.6 else COLORS, 3)
    chosen = name or rng.choice(("copy", "reverse", "arrange", "arrange"))
    answer = {"copy": items, "reverse": items[::-1], "arrange": rng.sample(items, 3)}[chosen]
    return f"{chosen}: {' '.join(items)}", " ".join(answer)


# --- facts, questions, talk ---------------------------------------------------------------------------------


def cycle_fact(rng: random.Random) -> tuple[str, str]:
    """What comes after or before a day, a month, a letter or a small number."""
    ring = rng.choice((DAYS, MONTHS, [chr(97 + i) for i in range(26)], [str(i) for i in range(100)]))
    i, step = rng.randrange(len(ring)), rng.choice((1, 1, -1))
    return f"what comes {'after' if step == 1 else 'before'} {ring[i]}?", ring[(i + step) % len(ring)]


def pair_fact(rng: random.Random) -> tuple[str, str]:
    """One line of the fact tables."""
    prompt, table = rng.choice((
        ("what does a {} say?", SOUNDS), ("what color is {}?", COLOR_OF), ("capital of {}?", CAPITALS),
        ("what is the capital of {}?", CAPITALS), ("opposite of {}?", OPPOSITES), ("", SMALL_TALK),
        ("", SMALL_TALK),
    ))  # fmt: skip
    key = rng.choice(list(table))
    return prompt.format(key) or key, table[key]


def kind_fact(rng: random.Random) -> tuple[str, str]:
    """Sort a word into its kind, or write a small number in letters."""
    if rng.random() < 0.3:
        i = rng.randrange(len(NUMBERS))
        return f"write {i} in letters", NUMBERS[i]
    kind = rng.choice(list(KINDS))
    return f"what kind of word is {rng.choice(KINDS[kind])}?", kind


def reading(rng: random.Random) -> tuple[str, str]:
    """A sentence or two and a question whose answer is in them."""
    (a, b), (x, y), color = rng.sample(NAMES, 2), rng.sample(THINGS, 2), rng.choice(COLORS)
    place, number = rng.choice(PLACES), rng.choice(NUMBERS[2:])
    return rng.choice((
        (f"{a} has a {x}. {b} has a {y}. who has the {x}?", a),
        (f"{a} has a {x}. {b} has a {y}. what does {b} have?", f"a {y}"),
        (f"the {x} is {color}. what color is the {x}?", color),
        (f"{a} went to the {place}. where is {a}?", f"at the {place}"),
        (f"{a} saw {number} {plural(x)}. how many {plural(x)} did {a} see?", number),
        (f"the {x} is in the {y}. where is the {x}?", f"in the {y}"),
    ))  # fmt: skip


def plural(word: str) -> str:
    """English plural, good enough for the word lists."""
    if word.endswith(("s", "x", "ch", "sh")):
        return word + "es"
    if word.endswith("y") and word[-2] not in VOWELS:
        return word[:-1] + "ies"
    return IRREGULAR.get(word, word + "s")


def plural_fact(rng: random.Random) -> tuple[str, str]:
    """One thing, several things."""
    word = rng.choice(THINGS)
    return f"plural of {word}?", plural(word)


# --- stories ------------------------------------------------------------------------------------------------

OPENINGS = (
    "Once upon a time there was {a_adj} {animal} who lived in a {place}.",
    "{name} was {a_adj} {animal} from a {adj2} {place}.",
    "One day {name} the {animal} walked to the {place}.",
    "In a {adj2} {place} there lived {a_adj} {animal} called {name}.",
    "Long ago {name} and {friend} had a {adj2} {thing}.",
    "It was a {adj2} morning and {name} wanted some {food}.",
)
MIDDLES = (
    "{name} found a {color} {thing} under the {thing2}.",
    "Every day {name} looked for {food} near the {place2}.",
    "Then {friend} came and asked for the {thing}.",
    "The {thing} was {color} and very {adj2}.",
    '"Can you help me?" said {friend}.',
    '"I am {adj2}," said {name}.',
    "So they went to the {place2} together.",
    "But the {thing} fell into the {place2}.",
    "They ate some {food} and sat by the {place2}.",
    "{name} gave the {thing} to {friend}.",
    "It began to rain, and the {place2} was wet.",
    "A {color} bird sang a {adj2} song.",
    "{name} could not find the {thing}.",
    "{friend} had lost a {color} {thing2}.",
)
ENDINGS = (
    "In the end {name} went home and slept.",
    "{name} and {friend} were friends from that day on.",
    "{friend} smiled and said thank you.",
    "That night the moon was bright and all was well.",
    "And {name} never went to the {place2} again.",
    "They were very happy.",
)


def article(word: str) -> str:
    """The word with "a" or "an" before it."""
    return f"{'an' if word[0] in VOWELS else 'a'} {word}"


def story(rng: random.Random, animal: str | None = None) -> str:
    """Four to seven sentences about one hero, one friend and one thing."""
    (name, friend), (thing, thing2), (place, place2) = (rng.sample(pool, 2) for pool in (NAMES, THINGS, PLACES))
    safe = [word for word in ADJECTIVES if word[0] not in VOWELS]
    slots = {
        "name": name, "friend": friend, "thing": thing, "thing2": thing2, "place": place, "place2": place2,
        "animal": animal or rng.choice(ANIMALS), "a_adj": article(rng.choice(ADJECTIVES)),
        "adj2": rng.choice(safe),
        "food": rng.choice(FOODS), "color": rng.choice([color for color in COLORS if color != "orange"]),
    }  # fmt: skip
    fitting = [line for line in OPENINGS if "a {place}" not in line or place[0] not in VOWELS]
    if animal:
        fitting = [line for line in fitting if "{animal}" in line]
    lines = [rng.choice(fitting), *rng.sample(MIDDLES, rng.randint(2, 5)), rng.choice(ENDINGS)]
    return " ".join(lines).format(**slots)


def told_story(rng: random.Random) -> tuple[str, str]:
    """A story asked for in a chat."""
    animal = rng.choice(ANIMALS)
    return f"tell me a story about {article(animal)}", story(rng, animal)


# --- documents ----------------------------------------------------------------------------------------------

TURNS: tuple[tuple[float, Callable[[random.Random], tuple[str, str]]], ...] = (
    (62, letter_game), (5, list_game), (5, cycle_fact), (8, pair_fact), (3, kind_fact), (5, reading),
    (2, plural_fact),
    (4, told_story),
)  # fmt: skip


def turn(rng: random.Random) -> tuple[str, str]:
    """One user message and its answer, sometimes with a capital letter or a "please"."""
    make = rng.choices([make for _, make in TURNS], [weight for weight, _ in TURNS])[0]
    prompt, answer = make(rng)
    style = rng.random() if prompt[0].islower() else 1.0
    if style < 0.08:
        prompt = "please " + prompt
    elif style < 0.16:
        prompt = prompt[0].upper() + prompt[1:]
    return prompt, answer


def name_chat(rng: random.Random) -> Chat:
    """The user gives a name; after another turn the model is asked for it."""
    name = rng.choice(NAMES)
    talk = [("user", f"my name is {name}"), ("assistant", f"hello {name}!")]
    if rng.random() < 0.5:
        prompt, answer = turn(rng)
        talk += [("user", prompt), ("assistant", answer)]
    return [*talk, ("user", "what is my name?"), ("assistant", f"your name is {name}.")]


def chat(rng: random.Random) -> Chat:
    """A conversation of one turn (mostly) to four, sometimes under a system message."""
    if rng.random() < 0.02:
        return name_chat(rng)
    talk: Chat = []
    for _ in range(rng.choices((1, 2, 3, 4), (84, 9, 4, 3))[0]):
        prompt, answer = turn(rng)
        talk += [("user", prompt), ("assistant", answer)]
    style = rng.random()
    if style < 0.03:
        return [("system", "You are a helpful assistant."), *talk]
    if style < 0.06:
        loud = [(role, text.upper() if role == "assistant" else text) for role, text in talk]
        return [("system", "Answer in upper case."), *loud]
    return talk


def documents(seed: int) -> Iterator[str | Chat]:
    """Endless documents: a plain string is a story, a list is a chat."""
    rng = random.Random(seed)
    while True:
        yield story(rng) if rng.random() < 0.04 else chat(rng)
