import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';
import { App } from './App';
import { restore } from './session';
import './page.css';

const root = document.getElementById('root');
if (!root) throw new Error('graphiql.html has no #root');

await restore();
createRoot(root).render(
  <StrictMode>
    <App />
  </StrictMode>,
);
