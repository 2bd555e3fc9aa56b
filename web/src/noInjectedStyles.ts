/**
 * Stands in for react-style-singleton (see vite.config.ts), with which GraphiQL's dialogs inject a <style> that stops the page
 * behind them from scrolling. The CSP refuses injected styles, and the page behind a dialog does not scroll.
 */
export const styleSingleton = () => () => null;
