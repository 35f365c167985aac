// Counts words of texts, and greets.
'use strict';
const express = require('express');

const app = express();
app.use(express.text());
app.get('/hello/:who', (request, response) => response.send(`Hello, ${request.params.who}!`));
app.post('/words', (request, response) => {
  const words = String(request.body).split(/\s+/).filter(Boolean);
  response.json({ words: words.length, distinct: new Set(words).size });
});
app.listen(Number(process.env.PORT || 3000), '0.0.0.0');
