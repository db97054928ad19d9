window.atlasContexts?.({{ texts }});
