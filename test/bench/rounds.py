"""The order of measurements: all sides in each round, so that a busy minute of the machine meets all of them."""


def interleave(sides, n_rounds, pause):
    """Samples of each of @sides (name to function), @n_rounds each. Before each sample @pause lets the machine go idle,
    as it is when a request comes. Each round starts with another side: none always follows the same one."""
    names = list(sides)
    samples = {name: [] for name in names}
    for i in range(n_rounds):
        first = i % len(names)
        for name in names[first:] + names[:first]:
            pause()
            samples[name].append(sides[name]())
    return samples
