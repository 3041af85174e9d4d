"""Facts: the tables from which the questions of the embedded pool are made.

Plain data, chosen so that each entry has exactly one right answer that nobody would dispute: no country with two
capitals or a capital about to move, no animal or thing on the border of two kinds, no word with two common opposites.
"""


def _pairs(text: str) -> tuple[tuple[str, str], ...]:
    """Read `left = right; left = right; ...`."""
    pairs = (entry.partition("=") for entry in text.split(";"))
    return tuple((left.strip(), right.strip()) for left, _, right in pairs)


def _words(text: str) -> tuple[str, ...]:
    """Read `word, word, ...`."""
    return tuple(word.strip() for word in text.split(","))


CAPITALS = _pairs("""
    France = Paris; Germany = Berlin; Italy = Rome; Spain = Madrid; Portugal = Lisbon; Austria = Vienna;
    Belgium = Brussels; Denmark = Copenhagen; Sweden = Stockholm; Norway = Oslo; Finland = Helsinki;
    Iceland = Reykjavik; Ireland = Dublin; Poland = Warsaw; Hungary = Budapest; Romania = Bucharest; Bulgaria = Sofia;
    Greece = Athens; Croatia = Zagreb; Serbia = Belgrade; Slovenia = Ljubljana; Slovakia = Bratislava;
    Albania = Tirana; Estonia = Tallinn; Latvia = Riga; Lithuania = Vilnius; Belarus = Minsk; Russia = Moscow;
    Turkey = Ankara; Cyprus = Nicosia; Malta = Valletta; Armenia = Yerevan; Azerbaijan = Baku; Iran = Tehran;
    Iraq = Baghdad; Syria = Damascus; Lebanon = Beirut; Jordan = Amman; Qatar = Doha; Oman = Muscat; Bahrain = Manama;
    Afghanistan = Kabul; Pakistan = Islamabad; Nepal = Kathmandu; Bangladesh = Dhaka; Thailand = Bangkok;
    Vietnam = Hanoi; Laos = Vientiane; the Philippines = Manila; China = Beijing; Mongolia = Ulaanbaatar;
    South Korea = Seoul; North Korea = Pyongyang; Australia = Canberra; New Zealand = Wellington; Fiji = Suva;
    Canada = Ottawa; Cuba = Havana; Jamaica = Kingston; Honduras = Tegucigalpa; Nicaragua = Managua;
    Venezuela = Caracas; Ecuador = Quito; Peru = Lima; Chile = Santiago; Argentina = Buenos Aires;
    Uruguay = Montevideo; Egypt = Cairo; Libya = Tripoli; Tunisia = Tunis; Algeria = Algiers; Morocco = Rabat;
    Sudan = Khartoum; Ethiopia = Addis Ababa; Uganda = Kampala; Rwanda = Kigali; Somalia = Mogadishu; Ghana = Accra;
    Senegal = Dakar; Mali = Bamako; Nigeria = Abuja; Angola = Luanda; Zambia = Lusaka; Zimbabwe = Harare;
    Namibia = Windhoek; Botswana = Gaborone; Mozambique = Maputo; Madagascar = Antananarivo
""")

COUNTRIES_BY_CONTINENT = {
    "Africa": _words("Kenya, Nigeria, Ghana, Senegal, Zambia, Namibia, Uganda, Algeria"),
    "Asia": _words("India, China, Thailand, Vietnam, Nepal, Pakistan, Japan, Mongolia"),
    "Europe": _words("France, Poland, Sweden, Italy, Hungary, Ireland, Belgium, Finland"),
}

STATEMENTS = {
    # question about a thing: (things for which the answer is yes, things for which it is no)
    "Can {a} fly?": (
        _words("an eagle, a sparrow, a bat, an owl, a pigeon, a butterfly, a mosquito, a seagull, a bee"),
        _words("a penguin, an ostrich, a dog, a cow, an elephant, a horse, a snake, a pig, a shark"),
    ),
    "Is {a} a mammal?": (
        _words("a dog, a cat, a horse, a whale, a dolphin, a bat, a cow, an elephant, a mouse"),
        _words("an eagle, a salmon, a crocodile, a frog, a spider, a shark, a turtle, an ant, a lizard"),
    ),
    "Is {a} a fruit?": (
        _words("a banana, an apple, an orange, a mango, a pear, a cherry, a peach"),
        _words("a potato, a carrot, an onion, a cabbage, a loaf of bread, a lettuce, a radish"),
    ),
    "Is {a} a metal?": (
        _words("iron, copper, gold, silver, aluminum, nickel, zinc"),
        _words("wood, glass, wool, paper, rubber, cotton, leather"),
    ),
    "Is {a} an even number?": (_words("2, 4, 6, 8, 10, 12, 20"), _words("1, 3, 5, 7, 9, 11, 15")),
    "Is {a} a musical instrument?": (
        _words("a violin, a piano, a guitar, a flute, a trumpet"),
        _words("a hammer, a chair, a spoon, a bicycle, a candle"),
    ),
}

YES = _words("""
    Is the sun a star, Is ice frozen water, Is snow white, Does a triangle have three sides, Is the Pacific an ocean,
    Is London in England, Do fish live in water, Do cows give milk, Does a car have wheels, Is sugar sweet,
    Is a lemon sour, Is blood red, Are there 24 hours in a day, Are there 12 months in a year,
    Is February the shortest month, Is Monday the day after Sunday, Does the sun rise in the east, Do birds lay eggs,
    Is fire hot, Do plants need water
""")

NO = _words("""
    Is the moon a planet, Is fire cold, Does a circle have corners, Does a square have five sides, Is the Sahara a river,
    Is Paris in Germany, Do cats bark, Do humans have three eyes, Does a bicycle have six wheels, Is coal white,
    Is grass blue, Are there ten days in a week, Are there 50 minutes in an hour, Is Friday the day after Saturday,
    Is winter hotter than summer, Does the sun rise in the west, Do spiders have four legs,
    Is the Atlantic a mountain, Is milk black, Can stones swim
""")

RANKS = {
    # (more of it, less of it): things in rising order, each far from its neighbours
    ("heavier", "lighter"): _words("a feather, an apple, a brick, a bicycle, a piano, a bus"),
    ("bigger", "smaller"): _words("an ant, a mouse, a cat, a sheep, a horse, an elephant, a blue whale"),
    ("faster", "slower"): _words("a snail, a horse, a race car, a jet plane, a rocket"),
    ("hotter", "colder"): _words("ice, warm milk, boiling water, fire, the sun"),
    ("longer", "shorter"): _words("a second, a minute, an hour, a day, a week, a month, a year, a century"),
}

OPPOSITES = _pairs("""
    up = down; left = right; black = white; day = night; true = false; hot = cold; wet = dry; full = empty;
    fast = slow; high = low; strong = weak; rich = poor; early = late; young = old; happy = sad; north = south;
    east = west; in = out; inside = outside; on = off; over = under; front = back; top = bottom; first = last;
    before = after; win = lose; buy = sell; push = pull; give = take; love = hate; friend = enemy; war = peace;
    life = death; alive = dead; summer = winter; thick = thin; wide = narrow; tall = short; deep = shallow;
    clean = dirty; safe = dangerous; positive = negative; minimum = maximum; male = female; question = answer;
    entrance = exit; increase = decrease; import = export; remember = forget; success = failure; best = worst;
    better = worse; more = less; everything = nothing; always = never; odd = even; vertical = horizontal;
    internal = external; plus = minus; floor = ceiling; asleep = awake; guilty = innocent; majority = minority;
    expensive = cheap
""")

COLORS = _pairs("""
    a ripe banana = yellow; fresh grass = green; snow = white; blood = red; coal = black; the clear sky by day = blue;
    a ripe strawberry = red; a carrot = orange; a lemon = yellow; milk = white; a lime = green; chocolate = brown;
    a polar bear = white; a stop sign = red; an emerald = green; a ruby = red; a sapphire = blue; a crow = black;
    spinach = green; a cucumber = green; a pumpkin = orange; salt = white; a flamingo = pink; an egg yolk = yellow;
    the mix of blue and yellow paint = green; the mix of red and white paint = pink;
    the mix of red and yellow paint = orange; the mix of blue and red paint = purple
""")

COUNTS = _pairs("""
    legs does a spider have = 8; legs does a dog have = 4; legs does an ant have = 6; legs does a bird have = 2;
    wheels does a bicycle have = 2; wheels does a tricycle have = 3; days are in a week = 7; months are in a year = 12;
    hours are in a day = 24; minutes are in an hour = 60; seconds are in a minute = 60; sides does a triangle have = 3;
    sides does a square have = 4; sides does a pentagon have = 5; sides does a hexagon have = 6;
    letters are in the English alphabet = 26; planets are in the Solar System = 8; cents are in a dollar = 100;
    eyes does a person have = 2; toes are on one foot = 5; years are in a decade = 10; years are in a century = 100;
    eggs are in a dozen = 12; strings does a violin have = 4; arms does an octopus have = 8;
    sides does an octagon have = 8; legs does a cat have = 4; weeks are in a year = 52
""")

ANIMALS = _pairs("""
    What is a young dog called = puppy; What is a young cat called = kitten; What is a young cow called = calf;
    What is a young horse called = foal; What is a young sheep called = lamb; What is a young duck called = duckling;
    What is a young chicken called = chick; What is a young lion called = cub; What is a young pig called = piglet;
    What is a young deer called = fawn; What is a young goose called = gosling; What is a young kangaroo called = joey;
    What is a young swan called = cygnet; What is a young frog called = tadpole; Which animal barks = dog;
    Which animal meows = cat; Which animal gives us wool = sheep; Which insect makes honey = bee;
    Which animal has a very long neck = giraffe; Which animal has a trunk = elephant;
    Which animal has black and white stripes = zebra; Which animal carries its young in a pouch = kangaroo;
    Which animal is called the king of the jungle = lion; Which animal spins webs = spider;
    Which bird hoots at night = owl; Which is the fastest land animal = cheetah; Which animal builds dams = beaver;
    Which animal crosses deserts with water in its hump = camel; Which small animal croaks in ponds = frog;
    Which bird from Antarctica swims but cannot fly = penguin; Which animal says moo = cow;
    Which lizard changes its color to hide = chameleon
""")

PLURALS = _pairs("""
    mouse = mice; child = children; foot = feet; tooth = teeth; man = men; woman = women; goose = geese; city = cities;
    baby = babies; box = boxes; knife = knives; leaf = leaves; wolf = wolves; dog = dogs; house = houses; bus = buses;
    church = churches; story = stories; life = lives; half = halves; ox = oxen; wife = wives; shelf = shelves;
    country = countries; berry = berries; watch = watches; glass = glasses; key = keys; fox = foxes;
    potato = potatoes; hero = heroes; lady = ladies; thief = thieves; dish = dishes; party = parties; loaf = loaves
""")

PAST_TENSES = _pairs("""
    go = went; eat = ate; see = saw; run = ran; take = took; give = gave; come = came; write = wrote; drink = drank;
    sing = sang; swim = swam; buy = bought; think = thought; bring = brought; teach = taught; catch = caught;
    find = found; make = made; say = said; tell = told; know = knew; grow = grew; fly = flew; draw = drew;
    break = broke; speak = spoke; steal = stole; drive = drove; ride = rode; fall = fell; feel = felt; keep = kept;
    leave = left; lose = lost; win = won; send = sent; build = built; walk = walked; play = played; stop = stopped
""")

KINDS = (
    # kinds to choose from, with their articles, and examples of each
    {
        "an animal": _words("""
            a dog, a lion, a rabbit, a tiger, a cow, a wolf, a monkey, a goat, a camel, a zebra, a fox, a bear, a sheep,
            a squirrel, a donkey, a giraffe, a leopard, an otter, a pig, a hamster"""),
        "a fruit": _words("""
            an apple, a banana, a cherry, a grape, a mango, a peach, a pear, a plum, a strawberry, a pineapple, a lemon,
            a papaya, an apricot, a raspberry, a blueberry, a melon, a fig, a watermelon, an orange, a grapefruit"""),
        "a tool": _words("""
            a hammer, a saw, a screwdriver, a wrench, a drill, a shovel, an axe, a chisel, a rake, a spade, a crowbar,
            a mallet, a hoe, a hacksaw, a pickaxe, a trowel, a scythe, a sledgehammer, a handsaw, a sickle"""),
    },
    {
        "a country": _words("Brazil, Kenya, Canada, Peru, Norway, India, Portugal, Vietnam"),
        "a city": _words("Tokyo, Chicago, Berlin, Sydney, Mumbai, Toronto, Barcelona, Moscow"),
        "a river": _words("the Nile, the Danube, the Thames, the Rhine, the Ganges, the Volga, the Seine, the Mekong"),
    },
)

DAYS = _words("Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday")
MONTHS = _words("""
    January, February, March, April, May, June, July, August, September, October, November, December
""")
NUMERALS = _words("one, two, three, four, five, six, seven, eight, nine, ten")

# Nothing begins or ends with "a": as an answer it would be read as an article.
LETTERS = tuple("BCDEFGHIJKLMNOPQRSTUVWXYZ")
SPELLED = _words("""
    garden, window, bread, kitchen, flower, mountain, school, river, pencil, tiger, yellow, number, queen, lemon,
    jungle, hotel, uncle, forest, village, island, orange, doctor, zoo, piano, x-ray, train, energy, needle, rabbit,
    cloud, bottle, music, winter, dragon, letter, honey
""")
