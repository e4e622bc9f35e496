"""Commands that tell what there is."""

from typing import Annotated

import typer

from vaestro.cli.shared import Json, Own

Group = Annotated[str | None, typer.Argument(metavar="[GROUP]", help="Only this group of recipes, such as priors; or recipes, data or challenges.")]


def list_all(group: Group = None, own: Own = None, as_json: Json = False) -> None:
    """List recipes, data sets and challenges, or one group of them: `vaestro list priors`."""
    from vaestro.cli.cards import print_catalogue
    from vaestro.cli.catalogue import catalogue
    from vaestro.recipes.files import bring

    bring(own)
    print_catalogue(catalogue(group), as_json)


def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A recipe, a part such as a likelihood, a data set or a challenge, your own by its folder.")],
    own: Own = None,
    as_json: Json = False,
) -> None:
    """Show a recipe (keywords, formula, paper, published number), a part such as a likelihood, a data set or a challenge."""
    from vaestro.cli.cards import print_card
    from vaestro.cli.catalogue import card
    from vaestro.recipes.files import bring

    bring(own)
    print_card(card(name), as_json)
