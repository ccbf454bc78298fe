"""Which columns a template can read, found without rendering, across everything it includes, imports and extends.

The answer may be too large but never too small: rendering with only these columns is rendering with all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from jinja2 import meta, nodes

ROW = "row"
_ROW_METHODS = frozenset(name for name in dir(dict) if not name.startswith("__"))


class DynamicReferenceError(Exception):
    """A template names another one by an expression. `line` is 1-based."""

    def __init__(self, line: int) -> None:
        super().__init__("the name of an included template must be written out")
        self.line = line


def references(tree: nodes.Template) -> Iterator[tuple[str, int, bool]]:
    """(name, line, whether it may be missing) of every template that this one names. Raises DynamicReferenceError."""
    for node in tree.find_all((nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)):
        names = _names(node)
        if not names:
            raise DynamicReferenceError(node.lineno)
        optional = isinstance(node, nodes.Include) and (node.ignore_missing or len(names) > 1)
        for name in names:
            yield name, node.lineno, optional


def columns_read(root: str, trees: Mapping[str, nodes.Template]) -> frozenset[str] | None:
    """Columns that the template `root` can read, None when it can read any. `trees` are used up: they are changed."""
    fields = [_row_fields(tree) for tree in trees.values()]
    rebound = {name for tree in trees.values() for name in _bound(tree)}
    blocks = any(True for tree in trees.values() for _ in tree.find_all(nodes.Block))
    names = _free_names(root, trees, {})
    if blocks and names & rebound:
        return None  # a block may see what its template, or one that extends it, sets; which one depends on the path
    if ROW not in names:
        return frozenset(names)
    if ROW in rebound or None in fields:
        return None
    return frozenset(names - {ROW}).union(*(f for f in fields if f is not None))


def _free_names(name: str, trees: Mapping[str, nodes.Template], done: dict[str, set[str]]) -> set[str]:
    """Names that a template looks up in its context, those of the templates it passes its context to included.

    Each of these is put where it is used as an expression that reads its names, so that Jinja's own scoping decides
    which of them are variables of the template around it.
    """
    if name not in done:
        tree = trees[name]
        for node in list(tree.find_all((nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends))):
            used: set[str] = set()
            if isinstance(node, nodes.Extends) or getattr(node, "with_context", False):
                for other in _names(node):
                    if other in trees:
                        used |= _free_names(other, trees, done)
            reads = nodes.Output([nodes.Name(n, "load", lineno=node.lineno) for n in sorted(used)], lineno=node.lineno)
            if tree.environment is not None:
                reads.set_environment(tree.environment)
            _put(tree, node, reads)
        done[name] = set(meta.find_undeclared_variables(tree))
    return done[name]


def _put(tree: nodes.Template, node: nodes.Node, reads: nodes.Output) -> None:
    if isinstance(node, nodes.Extends):
        tree.body.append(reads)  # the parent renders after everything at the top of its child
        return
    for parent in (tree, *tree.find_all(nodes.Node)):
        for field in parent.fields:
            body = getattr(parent, field, None)
            if isinstance(body, list) and any(child is node for child in body):
                at = next(i for i, child in enumerate(body) if child is node)
                body.insert(at, reads)
                return


def _names(node: nodes.Node) -> list[str]:
    """The template names in an include, import or extends; empty when they are not written out."""
    template: nodes.Expr = getattr(node, "template")  # noqa: B009  (not a field of every node)
    parts = template.items if isinstance(template, (nodes.Tuple, nodes.List)) else [template]
    names = [p.value for p in parts if isinstance(p, nodes.Const) and isinstance(p.value, str)]
    return names if len(names) == len(parts) else []


def _bound(tree: nodes.Template) -> Iterator[str]:
    """Every name that the template itself gives a value somewhere."""
    for node in tree.find_all((nodes.Name, nodes.Macro, nodes.Import, nodes.FromImport)):
        if isinstance(node, nodes.Name):
            if node.ctx in ("store", "param"):
                yield node.name
        elif isinstance(node, nodes.Macro):
            yield node.name
        elif isinstance(node, nodes.Import):
            yield node.target
        elif isinstance(node, nodes.FromImport):
            yield from (n[1] if isinstance(n, tuple) else n for n in node.names)


def _row_fields(tree: nodes.Template) -> set[str] | None:
    """Columns read as `row.name` or `row['name']`; None when `row` is used in any other way."""
    fields: set[str] = set()
    plain = 0
    accesses = [(n.node, n.attr) for n in tree.find_all(nodes.Getattr)]
    accesses += [
        (n.node, n.arg.value if isinstance(n.arg, nodes.Const) else None) for n in tree.find_all(nodes.Getitem)
    ]
    for owner, name in accesses:
        if not (isinstance(owner, nodes.Name) and owner.name == ROW):
            continue
        if not isinstance(name, str) or name in _ROW_METHODS or name.startswith("_"):
            return None
        fields.add(name)
        plain += 1
    uses = sum(1 for node in tree.find_all(nodes.Name) if node.name == ROW)
    return fields if uses == plain else None
