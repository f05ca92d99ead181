"""The console's own themes. None tells good from bad by red and green alone; `contrast` keeps to blue and orange on black."""

from __future__ import annotations

from textual.theme import Theme

DARK = Theme(
    name="lamdatui-dark",
    primary="#6ca8f0",
    secondary="#8fb7c9",
    accent="#7cc7e8",
    warning="#f2a65a",
    error="#ef7b7b",
    success="#86c9a0",
    foreground="#d8dee6",
    background="#10141a",
    surface="#171d25",
    panel="#1e2630",
    dark=True,
    variables={"border-blurred": "#3a4655"},
)
LIGHT = Theme(
    name="lamdatui-light",
    primary="#1f62b3",
    secondary="#3d6f85",
    accent="#0c6d93",
    warning="#a85a00",
    error="#b3261e",
    success="#1c7a48",
    foreground="#1d2530",
    background="#fbfcfd",
    surface="#f1f4f7",
    panel="#e4e9ee",
    dark=False,
    variables={"border-blurred": "#b6c0cb"},
)
CONTRAST = Theme(
    name="lamdatui-contrast",
    primary="#7cc4ff",
    secondary="#a8d8ff",
    accent="#8fd3ff",
    warning="#ffd166",
    error="#ffa24d",
    success="#7cc4ff",
    foreground="#ffffff",
    background="#000000",
    surface="#0c0c0c",
    panel="#1a1a1a",
    dark=True,
    variables={"border-blurred": "#9a9a9a", "text-success": "#7cc4ff", "text-error": "#ffa24d", "text-warning": "#ffd166"},
)
OURS = (DARK, LIGHT, CONTRAST)
SHORT = {"dark": DARK.name, "light": LIGHT.name, "contrast": CONTRAST.name}
"""What the settings may say for our own themes."""
