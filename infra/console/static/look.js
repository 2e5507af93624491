// Before the first paint: the theme that was chosen here. Without a choice it is the system's.
(() => {
  const theme = localStorage.getItem("headrace-theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
})();
