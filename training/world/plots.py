"""The world's stories, sentence by sentence.

{one} and {two} are the two who meet ("Anna", "the fox"), {place} and {weather} come from the
prompt. The other slots are the teller's to choose, once for the whole story, from CHOICES.
"""

OPENING = "Once upon a time, on a {weather} day, {one} met {two} {place}."
ENDING = "The end."
CHOICES = {
    "toy": ("ball", "lamp", "bell"),
    "food": ("bread", "cheese", "meat"),
    "spot": ("tree", "house", "hill"),
    "made": ("boat", "house", "box"),
    "colour": ("red", "blue", "green"),
}
PLOTS = {
    "lost": (
        'But {two} was sad and said, "My {toy} is lost."',
        'So {one} said, "I will help you find the {toy}."',
        "They looked under the bed and behind the {spot}.",
        "At last {one} found the {toy} near the water.",
        'Now {two} was happy and said, "Thank you, my good friend."',
    ),
    "shared": (
        "That day {one} had a lot of {food}, but {two} had no food at all.",
        'So {two} said, "I am hungry."',
        "Then {one} cut the {food} in two, and they ate it behind the {spot}.",
        "They sang a little song and looked at the sky.",
        "From that day on, {one} and {two} were good friends.",
    ),
    "race": (
        'First {one} said, "Let us run to the {spot}!"',
        "They ran and ran, and the wind was at their back.",
        "Then {two} fell down, so {one} came back to help.",
        "They walked to the {spot} and sat down in the grass.",
        'So {two} said, "A good friend is better than a race."',
    ),
    "night": (
        "Soon it was night, and {two} could not find the way home.",
        'But {one} had a little lamp and said, "Come with me."',
        "They walked behind the {spot} and looked at the moon and the stars.",
        "At last they were home, and {two} was happy.",
        "They ate some {food} and slept all night.",
    ),
    "built": (
        'First {one} said, "Let us make a {made}!"',
        "So {one} found some wood, and {two} found some leaves.",
        "They worked all day and sang a happy song.",
        "In the night the {made} was ready, and it was {colour}.",
        'Then {two} said, "It is a good {made}, my friend."',
    ),
}
