"""Tables of plain text for a terminal."""

from ofrecord_util.escaping import for_terminal


def text_table(header, rows, left=1):
    """The lines of a table, with two blanks between columns. Characters that a terminal would obey are shown as escape sequences.

    Args:
        header: list of str.
        rows: lists of cells, each a str or an int.
        left: number of columns, from the first one, that are aligned to the left; the others are aligned to the right.
    Returns:
        list of str.
    """
    lines = [[for_terminal(cell) for cell in line] for line in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines)]
    aligned = [
        [cell.ljust(width) if place < left else cell.rjust(width) for place, (cell, width) in enumerate(zip(line, widths))]
        for line in lines
    ]
    return ["  ".join(cells).rstrip() for cells in aligned]
