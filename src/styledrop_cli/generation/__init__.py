"""Generation: from requests in words to picture files, new ones or given ones that are changed."""
