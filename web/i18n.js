// The page's languages: words, plurals, numbers and dates.  A new language is one file and one line here.
import en from './lang-en.js';
import fr from './lang-fr.js';
import zh from './lang-zh.js';

const languages = { en, fr, zh };
export const names = { en: 'English', fr: 'Français', zh: '中文' };

function choose() {
  const saved = localStorage.getItem('lang');
  if (saved in languages) return saved;
  for (const l of navigator.languages || []) {
    const two = l.slice(0, 2).toLowerCase();
    if (two in languages) return two;
  }
  return 'en';
}

export let lang = 'en';
let words = en, plural, number, one;

export function setLanguage(l) {
  if (l) localStorage.setItem('lang', l);
  else localStorage.removeItem('lang');
  lang = choose();
  words = languages[lang];
  plural = new Intl.PluralRules(lang);
  number = new Intl.NumberFormat(lang);
  one = new Intl.NumberFormat(lang, { minimumFractionDigits: 1, maximumFractionDigits: 1 });
  document.documentElement.lang = lang === 'zh' ? 'zh-Hans' : lang;
}

// t('key', { n: 3 }): {n} is replaced; where the entry is an object, its plural form for n is taken.
export function t(key, values) {
  let w = words[key] ?? en[key] ?? key;
  if (typeof w === 'object') w = w[plural.select(values.n)] ?? w.other;
  return w.replace(/\{(\w+)\}/g, (_, k) => (typeof values?.[k] === 'number' ? number.format(values[k]) : values?.[k] ?? ''));
}
export const num = (n) => number.format(n);
export const num1 = (n) => one.format(n);

// "12 s", "3 min 5 s"
export function duration(ms) {
  const s = Math.max(1, Math.round(ms / 1000));
  return s < 60 ? t('seconds', { n: s }) : t('minutes', { m: Math.floor(s / 60), s: s % 60 });
}

// The heading of a day in the list of chats.
export function dayGroup(ms) {
  const day = (d) => new Date(d.getFullYear(), d.getMonth(), d.getDate()).getTime();
  const days = Math.round((day(new Date()) - day(new Date(ms))) / 86400000);
  if (days <= 0) return t('today');
  if (days === 1) return t('yesterday');
  if (days < 7) return t('thisWeek');
  return new Intl.DateTimeFormat(lang, { month: 'long', year: 'numeric' }).format(new Date(ms));
}
export const dateTime = (ms) => new Intl.DateTimeFormat(lang, { dateStyle: 'medium', timeStyle: 'short' }).format(new Date(ms));

setLanguage(localStorage.getItem('lang') || '');
