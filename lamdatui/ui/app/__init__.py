"""The two Textual apps, what they share (shell, theme, help, clipboard, crash reports), and the browser tab's driver."""
