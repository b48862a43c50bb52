// POST a title, get a slug. `faas deploy examples/slugs`

import slugify from 'slugify';

export async function handle(event, context) {
  const title = event.text.trim();
  if (!title) return Response.json({ error: 'send a title' }, { status: 422 });
  context.logger.info('slug of %s', title);
  return { slug: slugify(title, { lower: true, strict: true }) };
}
