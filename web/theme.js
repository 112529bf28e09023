// Before the first paint, hence no module: the appearance that was chosen, if one was.
(() => {
  const theme = localStorage.getItem('theme');
  if (theme === 'dark' || theme === 'light') document.documentElement.dataset.theme = theme;
})();
