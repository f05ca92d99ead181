"""The pipeline pane: a tree of models by lineage with aligned score columns."""

from __future__ import annotations

from rich.style import Style
from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.events import Resize
from textual.widgets import Static, Tree
from textual.widgets.tree import TreeNode

from lamdatui.ui.keys import bindings
from lamdatui.ui.pipeline import Columns, Node, columns, header, lineage, row, tasks
from lamdatui.ui.state import ViewState
from lamdatui.ui.words import Tone

GUIDE = 2
EMPTY = "Nothing yet: the base models are measured first, then a trial is proposed."
NO_ENGINE = "No engine answers yet; the pipeline is shown as soon as one does."
_STYLED: tuple[Tone, ...] = ("dim", "good", "bad", "wait", "run", "strong")


class LineageTree(Tree[Node]):
    """Tree rows are as wide as the pane, so that scores line up at every depth."""

    BINDINGS = [*bindings("pane")]
    COMPONENT_CLASSES = {f"lineage--{tone}" for tone in _STYLED}
    ICON_NODE = ""
    ICON_NODE_EXPANDED = ""

    def __init__(self) -> None:
        super().__init__("models", id="lineage")
        self.show_root = False
        self.guide_depth = GUIDE
        self.auto_expand = False
        self._columns = Columns(())

    def show(self, nodes: list[Node], found: Columns) -> None:
        """Replace the rows; the cursor stays on its row, or moves with the newest one when it was there."""
        cursor = self.cursor_node.data.key if self.cursor_node and self.cursor_node.data else ""
        self._columns = found
        self.clear()
        for node in nodes:
            self._add(self.root, node)
        self.root.expand_all()
        if cursor:
            self._select(cursor)

    def _add(self, parent: TreeNode[Node], node: Node) -> None:
        branch = parent.add(node.name, data=node, expand=True, allow_expand=bool(node.children))
        for child in node.children:
            self._add(branch, child)

    def _select(self, key: str) -> None:
        found = next((node for node in _walk(self.root) if node.data and node.data.key == key), None)
        if found is not None:
            self.call_after_refresh(self.move_cursor, found)

    def render_label(self, node: TreeNode[Node], base_style: Style, style: Style) -> Text:
        if node.data is None:
            return Text()
        depth, above = 0, node.parent
        while above is not None:
            depth, above = depth + 1, above.parent
        # The root is hidden, so a first-level row has no guides before it.
        width = self.size.width - (depth - 1) * GUIDE - GUIDE
        text = Text(no_wrap=True, end="")
        for part, tone in row(node.data, self._columns, max(4, width)):
            extra = self.get_component_rich_style(f"lineage--{tone}", partial=True) if tone in _STYLED else Style.null()
            text.append(part, style + extra)
        return text


class PipelinePane(Vertical):
    """Column names above the tree."""

    def __init__(self, view: ViewState) -> None:
        super().__init__(id="pipeline", classes="pane")
        self.border_title = "1 Pipeline"
        self._view = view

    def compose(self) -> ComposeResult:
        yield Static(EMPTY, id="lineage-header", markup=False)
        yield LineageTree()

    def update_view(self) -> None:
        """Show the state again."""
        nodes = lineage(self._view)
        tree = self.query_one(LineageTree)
        width = max(10, self.size.width - 1)
        if not nodes:
            lost = self._view.connection in ("connecting", "lost")
            self.query_one("#lineage-header", Static).update(NO_ENGINE if lost else EMPTY)
            tree.clear()
            return
        found = columns(tasks(self._view.run), width, nodes, GUIDE)
        self.query_one("#lineage-header", Static).update(header(found, width))
        tree.show(nodes, found)

    def on_resize(self, event: Resize) -> None:
        self.update_view()


def _walk(node: TreeNode[Node]) -> list[TreeNode[Node]]:
    return [node, *(below for child in node.children for below in _walk(child))]
