"""The one exception a user is meant to read: what is wrong, where, and how to mend it."""


class UserError(Exception):
    """A mistake in the input or the configuration, told so that the reader can mend it.

    Args:
        what: the problem in one sentence.
        where: file, row or key it was found at.
        fix: what to do about it.
    """

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        self.what, self.where, self.fix = what, where, fix
        lines = [what]
        if where:
            lines.append(f"  where: {where}")
        if fix:
            lines.append(f"  fix:   {fix}")
        super().__init__("\n".join(lines))
