"""All that is known in the world. Other modules only ask and answer about these tables."""

from typing import NamedTuple

from training.world.wording import words


class Animal(NamedTuple):
    sound: str
    legs: int
    home: str
    food: str


ANIMALS = {
    "dog": Animal("woof", 4, "house", "meat"),
    "cat": Animal("meow", 4, "house", "fish"),
    "cow": Animal("moo", 4, "farm", "grass"),
    "sheep": Animal("baa", 4, "field", "grass"),
    "pig": Animal("oink", 4, "farm", "corn"),
    "horse": Animal("neigh", 4, "farm", "hay"),
    "duck": Animal("quack", 2, "pond", "plants"),
    "hen": Animal("cluck", 2, "farm", "seeds"),
    "goat": Animal("maa", 4, "hill", "leaves"),
    "fox": Animal("yip", 4, "forest", "eggs"),
    "wolf": Animal("howl", 4, "forest", "meat"),
    "bear": Animal("growl", 4, "forest", "honey"),
    "lion": Animal("roar", 4, "desert", "meat"),
    "tiger": Animal("grr", 4, "jungle", "meat"),
    "monkey": Animal("ooh", 2, "jungle", "bananas"),
    "elephant": Animal("toot", 4, "jungle", "leaves"),
    "mouse": Animal("squeak", 4, "field", "cheese"),
    "frog": Animal("croak", 4, "pond", "flies"),
    "owl": Animal("hoot", 2, "forest", "mice"),
    "bee": Animal("buzz", 6, "garden", "honey"),
    "snake": Animal("hiss", 0, "desert", "eggs"),
    "crow": Animal("caw", 2, "field", "corn"),
    "donkey": Animal("hee-haw", 4, "farm", "hay"),
    "parrot": Animal("squawk", 2, "jungle", "nuts"),
}

PLACES = {
    "house": "in the house",
    "farm": "on the farm",
    "field": "in the field",
    "pond": "by the pond",
    "hill": "on the hill",
    "forest": "in the forest",
    "desert": "in the desert",
    "jungle": "in the jungle",
    "garden": "in the garden",
}

# Each thing as it stands in a sentence. The first things of a colour are the ones named for it.
COLOURS = {
    "an apple": "red",
    "a cherry": "red",
    "a tomato": "red",
    "a banana": "yellow",
    "a lemon": "yellow",
    "the sun": "yellow",
    "grass": "green",
    "a leaf": "green",
    "a frog": "green",
    "the sky": "blue",
    "the sea": "blue",
    "snow": "white",
    "milk": "white",
    "a sheep": "white",
    "a crow": "black",
    "the night": "black",
    "a carrot": "orange",
    "an orange": "orange",
    "a plum": "purple",
    "a grape": "purple",
    "a pig": "pink",
    "a bear": "brown",
    "wood": "brown",
    "a potato": "brown",
    "an elephant": "grey",
    "a mouse": "grey",
}

MIXES = {
    ("red", "yellow"): "orange",
    ("blue", "yellow"): "green",
    ("red", "blue"): "purple",
    ("red", "white"): "pink",
    ("black", "white"): "grey",
}

# From small to big.
SIZES = words("seed bee mouse apple frog duck cat fox dog sheep pig bear horse elephant house hill")

DAYS = words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = words(
    "January February March April May June July August September October November December"
)
MONTH_DAYS = dict(zip(MONTHS, (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31), strict=True))
ORDINALS = words(
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth"
)
NUMBERS = words("zero one two three four five six seven eight nine ten eleven twelve")

# Lists are always told in this order.
CATEGORIES = {
    "fruits": words("apple banana cherry lemon orange pear plum grape"),
    "vegetables": words("carrot potato tomato onion bean pea corn cabbage"),
    "colours": words("red blue green yellow black white brown pink"),
    "farm animals": words("cow pig hen horse sheep goat duck donkey"),
    "wild animals": words("fox wolf bear lion tiger monkey elephant snake"),
    "clothes": words("hat coat shirt dress scarf sock shoe belt"),
    "foods": words("bread cheese egg soup rice fish meat honey"),
    "things": words("ball book lamp boat box cup key bell"),
    "months": MONTHS,
}

FRUITS = words("apples plums pears lemons oranges bananas")
NAMES = {
    "Anna": "her",
    "Ben": "him",
    "Mia": "her",
    "Tom": "him",
    "Lucy": "her",
    "Max": "him",
    "Eva": "her",
    "Leo": "him",
    "Nora": "her",
    "Jack": "him",
}
CITIES = words("Paris London Rome Berlin Madrid Oslo Tokyo Cairo")
WEATHERS = words("sunny rainy windy cold warm")

_MORE = words(
    "sun moon snow milk tree song friend happy story water wood wind night sky sea leaf car seed"
    " little good day week home name letter word number colour list"
)
SPELLED = sorted(
    {
        *ANIMALS,
        *PLACES,
        *_MORE,
        *(word for name, members in CATEGORIES.items() if name != "months" for word in members),
    }
)
