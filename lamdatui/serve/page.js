// The terminal has the keyboard from the start, and again when the tab comes back: nobody has to click first.
function focusTerminal() {
  const terminal = document.querySelector(".xterm-helper-textarea");
  if (terminal && document.activeElement === document.body) {
    terminal.focus();
  }
  return Boolean(terminal);
}
new MutationObserver((_, observer) => focusTerminal() && observer.disconnect()).observe(document, { childList: true, subtree: true });
window.addEventListener("focus", focusTerminal);
